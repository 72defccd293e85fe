"""What one check of an adapter or a base found: what was looked at, the number, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_clf.errors import LoraClfError, UsageError


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: of the check.
        passed: whether all is well; None: it was not checked, and ``found`` says why.
        checked: what was looked at.
        found: what was found, with the number.
        advice: what to do; empty where all is well.
        numbers: the numbers, ready for JSON.
    """

    name: str
    passed: bool | None
    checked: str
    found: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding, ready for JSON."""
        return {
            "name": self.name,
            "passed": self.passed,
            "checked": self.checked,
            "found": self.found,
            "advice": self.advice,
            "numbers": dict(self.numbers),
        }


def guarded(name: str, checked: str, check: Callable[[], Finding], advice: str) -> Finding:
    """What ``check`` finds; where it breaks down, that is the finding.

    Raises:
        UsageError: what was asked for makes no sense.
    """
    try:
        return check()
    except UsageError:
        raise
    except LoraClfError as error:
        return Finding(name, False, checked, str(error), advice)
    # A sick base fails in as many ways as torch has errors, and the other checks shall still be made.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        return Finding(name, False, checked, f"broke down: {type(error).__name__} {reason}".strip(), advice)
