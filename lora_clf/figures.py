"""Numbers for people, in the same form in every table and message."""

from __future__ import annotations


def bytes_text(count: int) -> str:
    """``1.35 MB``: three digits, units of a thousand."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:  # from where on three digits are 1 of the larger unit
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count} B"
