"""Adapters that earlier versions saved, one folder for each schema version, load as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_clf.adapters.adapter import load_adapter, read_header
from lora_clf.adapters.rules import SCHEMA
from lora_clf.adapters.verification import verify_folder
from lora_clf.base.base import Base, load_base
from tests.old_adapters.making import KINDS

KEPT = Path(__file__).resolve().parents[1] / "old_adapters"
VERSIONS = sorted(folder.name for folder in KEPT.glob("schema-*"))


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> tuple[Path, Base]:
    folder = KEPT / request.param
    return folder, load_base(folder / "base", device="cpu")


def test_there_is_a_folder_for_each_version_and_it_is_small() -> None:
    assert [f"schema-{number}" for number in range(1, SCHEMA + 1)] == VERSIONS
    sizes = [file.stat().st_size for version in VERSIONS for file in (KEPT / version).rglob("*") if file.is_file()]
    assert sum(sizes) < 200_000 * len(VERSIONS)


def test_they_load_with_their_stored_canaries(version: tuple[Path, Base]) -> None:
    folder, base = version
    names = sorted(path.name for path in folder.iterdir() if path.name != "base")
    assert names == sorted(KINDS) and len(names) == 6
    for name in names:
        adapter = load_adapter(folder / name, base, verify=True)  # canaries to 1e-4, on any machine
        assert adapter.labels == ("ham", "spam") and adapter.header.schema == int(folder.name.removeprefix("schema-"))
        assert (adapter.header.threshold, adapter.header.temperature, adapter.header.max_length) == (0.4, 1.5, 48)
        steps = verify_folder(folder / name, lambda header: base)
        assert len(steps) == 7 and all(step.passed for step in steps), steps
        (answer,) = adapter.predict(["win a prize"])
        assert answer.label in adapter.labels


def test_their_header_reads_without_a_base(version: tuple[Path, Base]) -> None:
    folder, base = version
    for name in KINDS:
        header = read_header(folder / name)
        assert header.base_digest == base.digest and header.strategy == KINDS[name][0]
        assert len(json.loads((folder / name / "adapter_config.json").read_text(encoding="utf-8"))) > 10


def test_saved_again_they_keep_their_numbers(version: tuple[Path, Base], tmp_path: Path) -> None:
    folder, base = version
    for name in KINDS:
        again = load_adapter(folder / name, base).save(tmp_path / name)
        old, new = load_adapter(folder / name, base), load_adapter(again, base, verify=True)
        assert (old.logits(["a", "b c"]) == new.logits(["a", "b c"])).all()
