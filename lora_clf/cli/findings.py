"""How checks are shown: a line each, and what to do where something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_clf.cli.output import line, one_line

if TYPE_CHECKING:
    from lora_clf.adapters.finding import Finding

WORDS = {True: "ok", False: "WRONG", None: "-"}


def show_findings(found: Sequence[Finding]) -> None:
    """Print each check: how it ended, its name, what was looked at, what was found; then how many are wrong."""
    width = max(len(finding.name) for finding in found)
    for finding in found:
        what = f"{one_line(finding.checked)}: {one_line(finding.found).rstrip('.')}."
        line(f"{WORDS[finding.passed]:<6}{finding.name:<{width}}  {what}")
        if finding.passed is False and finding.advice:
            line(f"{'':<6}{'':<{width}}  -> {one_line(finding.advice)}")
    wrong = sum(finding.passed is False for finding in found)
    line()
    line(f"{wrong} of {len(found)} checks found something wrong." if wrong else "Nothing wrong was found.")


def show_diagnosis(found: Sequence[Finding]) -> None:
    """Print what went wrong in a training, a line each with the number and what to try; nothing where all is well."""
    for finding in found:
        advice = one_line(finding.advice)
        line(f"{finding.name.capitalize()}: {one_line(finding.found)}. {advice[:1].upper()}{advice[1:]}.")
