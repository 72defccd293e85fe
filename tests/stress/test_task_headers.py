"""What an adapter's header says of its task is held to it: a wrong setting is refused, and nothing ends in a crash."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from lora_clf.adapters.adapter import Adapter, make_header
from lora_clf.adapters.canonical import canonical
from lora_clf.adapters.file import MODEL
from lora_clf.errors import LoraClfError
from lora_clf.tasks import Multilabel, Ordinal, Regression
from lora_clf.tasks.base import Task
from lora_clf.tuners import create
from tests.adapters.making import TEXTS, shared_base
from tests.stress.conftest import Counted
from tests.stress.mutations import Draw, Table, header_of, put_together, sign, take_apart, value_of, write
from tests.stress.test_corrupt_adapters import Original, also, tried

TASKS: Final[dict[str, Task]] = {
    "multilabel": Multilabel(("a", "b", "c"), "|", (0.3, 0.5, 0.6)),
    "regression": Regression(("score",), "huber", 3.0, 2.0),
    "ordinal": Ordinal(("low", "middle", "high"), (1.0, 2.5)),
}
FIELDS: Final = ("labels", "task", "requires", "canaries", "positive_label", "threshold", "temperature")
ODD: Final[tuple[Any, ...]] = (
    *(10**400, -(10**400), 1e308, 0, -1, None, True, "x" * 10_000, "\x1b[2J", [], {}, [[]], [10**400, 1]),
    *([0.5] * 3, [1, 2], [2, 1], [0.5, 1.5, 0.1]),
)


def adapter_of(task: Task) -> Adapter:
    """One with numbers at random."""
    base = shared_base("bert")
    tuned = create("lora", rank=3, alpha=7.0).prepare(base.view(task.outputs, "mean", seed=3))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return Adapter(base, tuned, make_header(base, tuned, labels=task.labels, task=task, seed=3))


def changed(draw: Draw, header: Table) -> Table:
    """The header with a field about its task changed, added or taken away."""
    settings = dict(header["task_settings"])
    way, name = draw.random(), draw.choice(sorted(settings))
    if way < 0.5:
        settings[name] = draw.choice((*ODD, value_of(draw, settings[name])))
    elif way < 0.6:
        del settings[name]
    elif way < 0.7:
        settings[draw.choice(("more", "", "é"))] = draw.choice(ODD)
    elif way < 0.8:
        return {**header, "task_settings": value_of(draw, settings)}
    else:
        other = draw.choice(FIELDS)
        return {**header, other: value_of(draw, header[other])}
    return {**header, "task_settings": settings}


def spoil(name: str, count: int, room: Path) -> Counter[str]:
    """What came of ``count`` changes of the header of an adapter for the task ``name``; half of them are signed."""
    original = Original(adapter_of(TASKS[name]).save(room / name), shared_base("bert"))
    folder = room / "room" / "adapter"
    folder.parent.mkdir()
    write(folder, original.files)
    also(folder, original, tried(folder, original))
    model = original.files[MODEL]
    assert isinstance(model, bytes)
    came: Counter[str] = Counter()
    for number in range(count):
        table, data = take_apart(model)
        right, draw = header_of(table), random.Random(f"{name}/{number}")
        header = changed(draw, right)
        if signed := number % 2 == 0:
            files = sign(original.files, header, table, data)
        else:
            table["__metadata__"]["lora_clf"] = json.dumps(header, sort_keys=True, separators=(",", ":"))
            files = {**original.files, MODEL: put_together(table, data)}
        write(folder, files)
        what, found = f"{name}/{number}: {header['task_settings']!s:.200}", tried(folder, original)
        if isinstance(found, LoraClfError):
            came["refused"] += 1
            continue
        same = canonical(header) == canonical(right)
        assert signed or same, f"accepted: {what}"
        for answer in found.predict(TEXTS):
            json.dumps(answer.as_dict(), allow_nan=False)
        came["unchanged" if same else "another"] += 1
    return came


@pytest.mark.parametrize("name", TASKS)
def test_some_headers_of_a_task(name: str, tmp_path: Path) -> None:
    came = spoil(name, 40, tmp_path)
    assert came.total() == 40 and came["refused"] > 25


@pytest.mark.stress
@pytest.mark.parametrize("name", TASKS)
def test_a_thousand_headers_of_a_task(name: str, tmp_path: Path, counted: Counted) -> None:
    came = spoil(name, 1_000, tmp_path)
    counted(f"headers of a {name} adapter", {**dict(sorted(came.items())), "crashes, silent accepts": 0})
