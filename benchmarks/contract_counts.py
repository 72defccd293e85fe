"""How many strategies work on how many architectures for how many tasks?

Runs the contract suite (tests/tuners/test_contract.py) and every combination of strategy, architecture and task
(tests/tuners/test_every_combination.py) on tiny random bases, and counts what passed, what is refused with a reason, as
the suite expects it, and what failed.

    python benchmarks/contract_counts.py
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import script
from paired import write_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULT = HERE / "results" / "contract_counts.json"
CONTRACT = "tests/tuners/test_contract.py"
COMBINATIONS = "tests/tuners/test_every_combination.py"
REFUSED = "refused, as it should be"
_CASE = re.compile(rf"{re.escape(COMBINATIONS)}::test_combination\[([^/\]]+)/([^/\]]+)/([^/\]]+)\]")


class Tally:
    """A pytest plugin that remembers how each test ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One phase of one test has ended; the worst phase counts."""
        if report.failed:
            self.ended[report.nodeid] = "failed"
        elif report.skipped:
            reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
            self.ended[report.nodeid] = "refused" if REFUSED in reason else "skipped"
        elif report.when == "call":
            self.ended.setdefault(report.nodeid, "passed")


def counted(ended: dict[str, str]) -> dict[str, Any]:
    """The counts of a run: node ids and how they ended."""
    cases = {found.groups(): outcome for node, outcome in ended.items() if (found := _CASE.match(node))}
    architectures, strategies, tasks = (sorted({case[axis] for case in cases}) for axis in range(3))
    pairs = {(strategy, name) for (name, strategy, _), outcome in cases.items() if outcome == "refused"}
    return {
        "strategies": strategies,
        "architectures": architectures,
        "tasks": tasks,
        "combinations": {"all": len(cases), **_outcomes(cases.values())},
        "refused": {
            strategy: sorted(name for other, name in pairs if other == strategy)
            for strategy in sorted({strategy for strategy, _ in pairs})
        },
        "contract_tests": _outcomes(outcome for node, outcome in ended.items() if node.startswith(CONTRACT)),
        "failed": sorted(node for node, outcome in ended.items() if outcome == "failed"),
    }


def _outcomes(values: Any) -> dict[str, int]:
    found = Counter(values)
    return {name: found[name] for name in ("passed", "refused", "skipped", "failed")}


def table(value: dict[str, Any]) -> str:
    """The counts as a table and what is refused."""
    from lora_clf.reports.table import markdown_table

    each, tests = value["combinations"], value["contract_tests"]
    sizes = [len(value[axis]) for axis in ("strategies", "architectures", "tasks")]
    rows = [
        [
            " x ".join(map(str, sizes)) + " combinations",
            *(f"{each[name]:,}" for name in ("passed", "refused", "failed")),
        ],
        ["tests of the contract", *(f"{tests[name]:,}" for name in ("passed", "refused", "failed"))],
    ]
    refused = "; ".join(f"{name} on {', '.join(where)}" for name, where in value["refused"].items())
    return (
        markdown_table(
            ["strategies x architectures x tasks", "passed", "refused", "failed"], rows, [True, False, False, False]
        )
        + f"\nRefused with a reason: {refused}. Tasks: {', '.join(value['tasks'])}. "
        + f"Architectures: {', '.join(value['architectures'])}.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites and write the counts; the exit status."""
    import pytest

    parser = script.parser(__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    flags = parser.parse_args(arguments)
    tally = Tally()
    where = [str(ROOT / CONTRACT), str(ROOT / COMBINATIONS)]
    status = pytest.main(
        [*where, "-m", "slow or not slow", "-n", "0", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"],
        plugins=[tally],
    )
    value = counted(tally.ended)
    write_json(flags.out, value)
    print(table(value))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
