"""Adapters that earlier versions saved, one folder for each schema version, load as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_clf.adapters.adapter import load_adapter, read_header
from lora_clf.adapters.rules import OPTIONAL, SCHEMA
from lora_clf.adapters.verification import verify_folder
from lora_clf.base.base import Base, load_base
from lora_clf.base.reading import PLAIN
from tests.old_adapters.making import KINDS, LATER, READINGS, TASKS, VERBALIZER

KEPT = Path(__file__).resolve().parents[1] / "old_adapters"
VERSIONS = sorted(folder.name for folder in KEPT.glob("schema-*"))


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> tuple[Path, Base]:
    folder = KEPT / request.param
    return folder, load_base(folder / "base", device="cpu")


def test_there_is_a_folder_for_each_version_and_it_is_small() -> None:
    assert [f"schema-{number}" for number in range(1, SCHEMA + 1)] == VERSIONS
    sizes = [file.stat().st_size for version in VERSIONS for file in (KEPT / version).rglob("*") if file.is_file()]
    assert sum(sizes) < 300_000 * len(VERSIONS)


def test_they_load_with_their_stored_canaries(version: tuple[Path, Base]) -> None:
    folder, base = version
    names = sorted(path.name for path in folder.iterdir() if path.name not in ("base", "decoder"))
    assert names == sorted([*KINDS, *LATER]) and len(names) == 12
    for name in KINDS:
        adapter = load_adapter(folder / name, base, verify=True)  # canaries to 1e-4, on any machine
        assert adapter.labels == ("ham", "spam") and adapter.header.schema == int(folder.name.removeprefix("schema-"))
        assert (adapter.header.threshold, adapter.header.temperature, adapter.header.max_length) == (0.4, 1.5, 48)
        steps = verify_folder(folder / name, lambda header: base)
        assert len(steps) == 7 and all(step.passed for step in steps), steps
        (answer,) = adapter.predict(["win a prize"])
        assert (answer.label == "spam") == (answer.probabilities["spam"] >= 0.4)


@pytest.mark.parametrize("name", LATER)
def test_those_with_fields_that_came_later_load_as_they_were(name: str, version: tuple[Path, Base]) -> None:
    folder, base = version
    on = load_base(folder / "decoder", device="cpu") if name == "verbalizer" else base
    adapter = load_adapter(folder / name, on, verify=True)
    header = adapter.header
    assert header.schema == int(folder.name.removeprefix("schema-")) and header.max_length == 48
    assert header.requires == (
        ("verbalizer",) if name == "verbalizer" else ("reading",) if name in READINGS else ("task_settings",)
    )
    assert header.how == READINGS.get(name, PLAIN) and (name not in TASKS or header.answering == TASKS[name])
    assert (header.verbalizer or {}).get("words") == (["no", "yes"] if name == "verbalizer" else None)
    assert header.verbalizer is None or header.verbalizer["template"] == VERBALIZER.template
    steps = verify_folder(folder / name, lambda header: on)
    assert len(steps) == 7 and all(step.passed for step in steps), steps
    (answer,) = adapter.predict(["win a prize. " * 30])
    assert answer.truncated != header.how.whole


def test_every_optional_field_of_a_header_has_an_adapter(version: tuple[Path, Base]) -> None:
    folder, _ = version
    written = {field for name in [*KINDS, *LATER] for field in json.loads(read_header(folder / name).text())}
    assert set(OPTIONAL) <= written and len(OPTIONAL) >= 3


def test_their_header_reads_without_a_base(version: tuple[Path, Base]) -> None:
    folder, base = version
    for name in KINDS:
        header = read_header(folder / name)
        assert header.base_digest == base.digest and header.strategy == KINDS[name][0]
        assert len(json.loads((folder / name / "adapter_config.json").read_text(encoding="utf-8"))) > 10


def test_saved_again_they_keep_their_numbers(version: tuple[Path, Base], tmp_path: Path) -> None:
    folder, base = version
    for name in [*KINDS, *TASKS, *READINGS]:
        again = load_adapter(folder / name, base).save(tmp_path / name)
        old, new = load_adapter(folder / name, base), load_adapter(again, base, verify=True)
        assert (old.logits(["a", "b c"]) == new.logits(["a", "b c"])).all()
