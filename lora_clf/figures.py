"""Numbers and lists for people, in the same form in every table and message."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_text(count: int) -> str:
    """``1.35 MB``: three digits, units of a thousand."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:  # from where on three digits are 1 of the larger unit
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count} B"


def listed(names: Sequence[str], last: str = "and") -> str:
    """``a, b and c``; ``last`` is the word before the last one."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
