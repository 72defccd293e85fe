"""Training runs that a result keeps as they end: the same command again does only what is missing.

base, data = subject(flags, folder, protocol="book")
found = kept(flags.out, base, data, {"epochs": 3})             # empty where base, data or epochs are others
found["runs"]["mean/0"] = ...                                  # NAME/SEED; write it at once
runs_of(found, "mean")                                         # by seed
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paired import provenance, read_json

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset


def subject(flags: argparse.Namespace, folder: Path, **settings: Any) -> tuple[Base, Dataset]:
    """The base and the data that the flags name, read with ``settings``; with --quick tiny ones."""
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import load_data

    if flags.quick:
        from quick import quick_base, quick_data

        return quick_base("bert", folder), quick_data()
    return load_base(flags.base, device=flags.device), load_data(flags.data, **settings)


def kept(out: Path, base: Base, data: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was run before on the same base and data with the same ``settings``; else an empty result."""
    facts = {"base": base.name, "base_digest": base.digest, **tested_on(data), **settings}
    before = read_json(out)
    if {name: before.get(name) for name in facts} == facts:
        return before
    return {**facts, "provenance": provenance(base.device), "runs": {}}


def tested_on(data: Dataset) -> dict[str, Any]:
    """What a result says of its data: the test rows by number, and which of them are near copies of each other."""
    from lora_clf.data.near_copies import components

    return {
        "data": data.name,
        "data_digest": data.digest,
        "protocol": data.protocol,
        "rows": [int(row) for row in data.test.rows],
        "groups": [int(group) for group in components(data.test.texts)],
    }


def runs_of(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The runs called ``name``, by seed."""
    seeds = sorted(int(key.rpartition("/")[2]) for key in found["runs"] if key.rpartition("/")[0] == name)
    return [found["runs"][f"{name}/{seed}"] for seed in seeds]
