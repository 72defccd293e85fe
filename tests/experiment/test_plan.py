from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

import pytest

import lora_clf
import lora_clf.inference.precision
from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.contender import contenders_of, takeable
from lora_clf.comparison.plan import Cell, Plan
from lora_clf.errors import UsageError
from lora_clf.experiment.folder import BEGUN, Folder
from lora_clf.experiment.materials import load_parts
from lora_clf.experiment.run import run_plan
from lora_clf.tuners import create, strategies
from tests.bases import tiny_base


def plan(**changes: object) -> Plan:
    return replace(Plan(contenders_of(["head-only", "lora"], {"lora": {"rank": 4}})), **changes)  # type: ignore[arg-type]


def test_cells_go_through_json_unchanged() -> None:
    first = plan(seeds=(3, 5), data=DataArguments("a.csv", {"split": "60/20/20"}, folds=4), training={"epochs": 2})
    for cell in first.cells():
        again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
        assert again == cell and again.digest == cell.digest


def test_cells_are_strategies_times_seeds_times_folds() -> None:
    assert [cell.name for cell in plan(seeds=(0, 1)).cells()] == [
        "head-only-seed-0",
        "lora-seed-0",
        "head-only-seed-1",
        "lora-seed-1",
    ]
    folded = plan(seeds=(0, 1), data=DataArguments("a.csv", folds=3)).cells()
    assert len(folded) == len({cell.name for cell in folded}) == len({cell.digest for cell in folded}) == 12
    assert {cell.fold for cell in folded} == {0, 1, 2}


def test_the_split_is_one_for_all_seeds_unless_asked_otherwise() -> None:
    assert {cell.split_seed for cell in plan(seeds=(4, 5), split_seed=9).cells()} == {9}
    assert [cell.split_seed for cell in plan(seeds=(4, 5), resplit=True).cells()] == [4, 4, 5, 5]


def test_the_digest_is_of_what_decides_the_result() -> None:
    cell = plan(base=BaseArguments("x")).cells()[0]
    moved = replace(cell, base=BaseArguments("/elsewhere/x"), data=DataArguments("/elsewhere/a.csv"))
    assert moved.digest == cell.digest
    for other in (
        replace(cell, seed=1),
        replace(cell, training={"epochs": 9}),
        replace(cell, training={"class_weight": "balanced"}),
        replace(cell, training={"stop_on": "mcc"}),
        replace(cell, base_digest="1"),
        replace(cell, data_digest="1"),
        replace(cell, base=BaseArguments("x", pooling="first")),
        replace(cell, contender=replace(cell.contender, settings={"rank": 1})),
        replace(cell, data=DataArguments(settings={"positive_label": "ham"})),
        replace(cell, environment_digest="1"),
    ):
        assert other.digest != cell.digest


def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import torch

    from lora_clf.experiment import environment

    base = SimpleNamespace(device=torch.device("cpu"))
    first = environment.environment_digest(base, "fp32")  # type: ignore[arg-type]
    assert environment.environment_digest(base, "fp32") == first  # type: ignore[arg-type]

    def changed(place: object, name: str, value: object) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            return environment.environment_digest(base, "fp32") != first  # type: ignore[arg-type]

    assert changed(torch, "get_num_threads", lambda: 77)
    assert changed(environment, "code_digest", lambda: "other")
    assert changed(importlib.metadata, "version", lambda name: "0")
    assert changed(lora_clf.inference.precision, "resolve_precision", lambda name, device: "bf16")


def test_changed_code_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_clf.experiment import environment
    from lora_clf.experiment.environment import code_digest

    real = code_digest()
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    found = [real]
    for name, text in (("__init__.py", ""), ("room/a.py", "1"), ("room/a.py", "2"), ("room/b.py", "")):
        (tmp_path / name).write_text(text)
        code_digest.cache_clear()
        found.append(code_digest())
    code_digest.cache_clear()
    assert len(set(found)) == len(found)


def test_contenders_by_name_by_object_and_twice() -> None:
    assert [c.label for c in contenders_of(None)] == ["head-only", "last-block", "full", "lora", "lora-scratch"]
    twice = contenders_of([create("lora", rank=2), create("lora"), "full"])
    assert [c.label for c in twice] == ["lora (rank=2)", "lora", "full"]
    assert twice[0].tuner() == create("lora", rank=2)


def test_all_are_those_that_the_base_can_take() -> None:
    everything = Plan(contenders_of("all"))
    assert len(everything.contenders) == len(strategies()) >= 19
    kept, left_out = takeable(everything, tiny_base("gpt2"), 2)
    assert [one["label"] for one in left_out] == ["oft", "boft", "peft"]
    assert all("cannot adapt this gpt2 base: " in one["reason"] for one in left_out)
    assert len(kept.contenders) == len(strategies()) - 3
    assert takeable(everything, tiny_base("bert"), 2) == (everything, [])
    with pytest.raises(UsageError, match="No strategy can adapt the base tiny-llama"):
        takeable(Plan(contenders_of(["bitfit"])), tiny_base("llama"), 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Plan(()), "no strategy"),
        (lambda: plan(seeds=()), "no seed"),
        (lambda: plan(seeds=(1, 1)), "seed 1 is named twice"),
        (lambda: plan(contenders=contenders_of(["lora", "lora"])), "strategy lora is named twice"),
        (lambda: plan(data=DataArguments("a.csv", folds=1)), "--folds 1"),
        (lambda: plan(training={"seed": 1}), "--seeds"),
        (lambda: contenders_of(["lorra"]), "Did you mean 'lora'"),
        (lambda: contenders_of(["full"], {"lora": {"rank": 4}}), "settings for lora"),
        (lambda: contenders_of(["full"], {"full": {"rank": 4}}), "--rank does not apply to full"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words):
        make()


def test_repeats_cut_anew_and_each_tests_every_row(table: Path) -> None:
    source = DataArguments(str(table), {"protocol": "near-copy-free"}, 3)
    repeated = plan(data=source, seeds=(0, 1), resplit=True)
    assert {(cell.seed, cell.split_seed) for cell in repeated.cells()} == {(0, 0), (1, 1)}
    assert len(repeated.cells()) == 2 * 2 * 3
    cuts = [[data.test.rows for data in source.load_all(seed)] for seed in repeated.split_seeds()]
    for cut in cuts:
        assert sorted(row for rows in cut for row in rows) == list(range(1, 121))
    assert not set(map(frozenset, cuts[0])) & set(map(frozenset, cuts[1]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split_column": "part"}, "the data come with a split of their own"),
        ({"protocol": "book"}, "--protocol book is one fixed split"),
        ({}, None),
    ],
    ids=str,
)
def test_a_split_that_no_seed_changes_is_not_repeated(
    tmp_path: Path, settings: dict[str, str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ["train", "train", "validation", "test"]
    rows = [f"text {n} is {n * 7919} of {n * n},{'ab'[n % 2]},{parts[n % 4]}" for n in range(120)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["text,label,part", *rows]), encoding="utf-8")
    repeated = plan(data=DataArguments(str(file), settings), seeds=(0, 1), resplit=True)
    if said is None:
        assert len({data.digest for data in load_parts(repeated).values()}) == 2
        alike = repeated.data.load_all(0)
        monkeypatch.setattr(DataArguments, "load_all", lambda *_: alike)
        said = "the splits of all seeds are the same"
    with pytest.raises(UsageError, match=f"{said}. Leave them out"):
        load_parts(repeated)
    assert len(load_parts(replace(repeated, resplit=False))) == 1


def test_a_split_whose_rest_a_seed_divides_is_repeated(tmp_path: Path) -> None:
    rows = [f"text {n} is {n * 7919} of {n * n},{'ab'[n % 2]},{('train', 'test')[n % 3 == 2]}" for n in range(120)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["text,label,part", *rows]), encoding="utf-8")
    repeated = plan(data=DataArguments(str(file), {"split_column": "part"}), seeds=(0, 1), resplit=True)
    assert len({data.digest for data in load_parts(repeated).values()}) == 2


@pytest.mark.parametrize(
    "name", ["report.md", "report.html", "results.csv", "curve.csv", "confusion.svg", "fit-lora.svg", "plan.json"]
)
def test_files_of_no_comparison_are_not_overwritten(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path, plan())
    folder.refuse_foreign("svg")
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    (tmp_path / "confusion.png").write_bytes(b"mine")  # plots of this comparison are svg
    folder.refuse_foreign("svg")
    (tmp_path / name).write_text('{"plan": "mine"}', encoding="utf-8")
    with pytest.raises(UsageError, match=f"{tmp_path.name} is no folder of a comparison and holds {name}. Choose ano"):
        run_plan(plan(), tmp_path, plot_format="svg")
    (tmp_path / BEGUN).write_text('{"plan": {}, "facts": {}}', encoding="utf-8")
    folder.refuse_foreign("svg")
