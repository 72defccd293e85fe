"""The counts of combinations: each test counts once, by the worst of its phases."""

from __future__ import annotations

import json
from types import SimpleNamespace

from contract_counts import COMBINATIONS, CONTRACT, REFUSED, RESULT, Tally, counted, table

from lora_clf.tasks import NAMES
from lora_clf.tuners import strategies


def test_what_is_counted() -> None:
    tally = Tally()

    def ended(node: str, **more: object) -> None:
        report = {"nodeid": node, "failed": False, "skipped": False, "when": "call", "longrepr": None, **more}
        tally.pytest_runtest_logreport(SimpleNamespace(**report))

    case = f"{COMBINATIONS}::test_combination"
    ended(f"{case}[bert/lora/binary]", when="setup")
    ended(f"{case}[bert/lora/binary]")
    ended(f"{case}[gpt2/oft/binary]", skipped=True, longrepr=("file", 3, f"Skipped: {REFUSED}"))
    ended(f"{case}[gpt2/lora/binary]")
    ended(f"{case}[gpt2/lora/binary]", when="teardown", failed=True)
    ended(f"{CONTRACT}::TestEveryArchitecture::test_x[bert-lora]", skipped=True, longrepr=("file", 3, "Skipped: long"))
    found = counted(tally.ended)
    assert (found["strategies"], found["architectures"], found["tasks"]) == (
        ["lora", "oft"],
        ["bert", "gpt2"],
        ["binary"],
    )
    assert found["combinations"] == {"all": 3, "passed": 1, "refused": 1, "skipped": 0, "failed": 1}
    assert found["contract_tests"]["skipped"] == 1 and found["refused"] == {"oft": ["gpt2"]}
    assert found["failed"] == [f"{case}[gpt2/lora/binary]"]
    assert "| 2 x 2 x 1 combinations | 1 | 1 | 1 |" in table(found) and "oft on gpt2" in table(found)


def test_the_result_file_holds_every_strategy_and_no_failure() -> None:
    value = json.loads(RESULT.read_text(encoding="utf-8"))
    assert value["strategies"] == sorted(strategies()) and value["tasks"] == sorted(NAMES)
    each = value["combinations"]
    assert each["all"] == len(value["strategies"]) * len(value["architectures"]) * len(value["tasks"]) >= 1045
    assert each["passed"] + each["refused"] == each["all"] and not each["failed"] and not value["failed"]
