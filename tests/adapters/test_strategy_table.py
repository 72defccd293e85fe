"""The table of what each strategy supports (docs/strategies.md) is what the code does, and all of it is tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.layout import in_peft_layout
from lora_clf.adapters.plain import export, merge
from lora_clf.adapters.resident import Workshop
from lora_clf.base.base import Base
from lora_clf.errors import NotMergeableError
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.one_position import last_block_for
from lora_clf.inference.prefix import find_cut
from lora_clf.tuners import create, strategies
from tests.adapters.making import make, shared_base
from tests.adapters.whole_bases import whole_base
from tests.bases import ARCHITECTURE_NAMES

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = ["`--strategy`", "merge, export", "PEFT reads the file", "in a pool", "average", "one position", "one node",
            "frozen blocks kept", "not on"]  # fmt: skip
FURTHER = tuple(strategies())[5:]
TYPES = (*ARCHITECTURE_NAMES, "mistral", "qwen2")


def yes(value: bool) -> str:
    return "yes" if value else "no"


def row(strategy: str) -> list[str]:
    """What holds for one strategy, each found by trying it on a tiny BERT."""
    kind = strategies()[strategy]
    base = shared_base("bert")
    adapter = make("bert", strategy)
    resident = Workshop(base, "fp32").from_tuned("a", adapter.header, adapter.tuned)
    pool = "pages" if resident.row is not None else "a head" if resident.own is None else "a part of its own"
    first = create(strategy).prepare(base.view(2, "first"))
    one = last_block_for(first.view, "first") is not None
    fused = fuse_blocks(create(strategy).prepare(base.view(2)), "fp32") > 0
    upper = create(strategy, **({"blocks": 1} if "blocks" in kind.flags() else {})).prepare(base.view(2))
    cut = find_cut(upper.view, changes_inputs=kind.changes_inputs)
    kept = "all" if cut.pooled else "with `--blocks`" if cut.blocks else "none"
    refused = [name for name in TYPES if create(strategy).refusal(shared_base(name).view(2)) is not None]
    merges = "nothing to merge" if strategy == "head-only" else yes(kind.mergeable)
    return [f"`{strategy}`", merges, yes(in_peft_layout(adapter.header)), pool, yes(kind.averages), yes(one),
            yes(fused), kept, ", ".join(refused)]  # fmt: skip


def test_the_table_of_the_page() -> None:
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row(strategy) for strategy in strategies())]
    expected = "\n".join("| " + " | ".join(cells) + " |" for cells in lines).replace("|  |", "| |")
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    found = re.search(r"^\| `--strategy` \| merge, export.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    assert found is not None and found.group() == expected, f"expected:\n{expected}"


def test_every_strategy_has_a_row_with_its_flags_in_the_first_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, kind in strategies().items():
        found = re.search(rf"^\| `{name}` \|.*\| [\d,]+ \| (.*)\|$", text, re.MULTILINE)
        assert found is not None, name
        flags = " ".join(f"--{flag.replace('_', '-')}" for flag in kind.flags())
        assert found.group(1).strip().strip("`") in (flags, "the same"), name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return whole_base("bert", tmp_path_factory.mktemp("bases") / "bert")


@pytest.mark.parametrize("strategy", FURTHER)
def test_merged_and_exported_or_refused(strategy: str, base: Base, tmp_path: Path) -> None:
    adapter: Adapter = make("bert", strategy, "family", base=base)
    if not strategies()[strategy].mergeable:
        for write in (merge, export):
            with pytest.raises(NotMergeableError, match=strategy):
                write(adapter, tmp_path / "no")
        assert not list(tmp_path.iterdir())
        return
    assert export(adapter, tmp_path / "plain").difference < 1e-5
    written, head = merge(adapter, tmp_path / "merged")
    assert written.difference < 1e-5 and head.header.training["merged_from"] == strategy
