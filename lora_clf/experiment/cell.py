"""One cell of a comparison: a strategy trained with one seed, scored, and put into the cell's folder.

`lora_clf.experiment.child` starts it in a process of its own, because that is the only way to know what one run
costs: peak memory is the process's. What frozen layers computed may come from the disk, where another cell left it:
its recorded seconds are charged (``cold_seconds``) whoever spent them.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.adapters.disk import folder_bytes
from lora_clf.comparison.outcome import Outcome, digest_file, mark_of, predictions_of, write_outcome
from lora_clf.comparison.plan import Cell
from lora_clf.errors import BaseError, DataError
from lora_clf.experiment.environment import environment
from lora_clf.experiment.materials import Materials
from lora_clf.experiment.memory import current_bytes, peak_bytes, restart_peak
from lora_clf.experiment.resuming import checkpoints_of, train_on
from lora_clf.metrics.probability import softmax

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.result import Progress, Result

Say = Callable[[dict[str, Any]], None]
TIMED_TEXTS = 256  # texts that are labelled once more, to see how many it does in a second
SLOW = "slow"  # a finding about this machine, not about the strategy
EVERY = 0.2  # seconds between two progress events


def run_cell(
    cell: Cell,
    folder: Path,
    adapter: Path | None = None,
    say: Say | None = None,
    dtype: str = "fp32",
    materials: Materials | None = None,
    every: int | str = "60s",
) -> Outcome:
    """Train one strategy with one seed and put what was found at ``folder``.

    A run of the same cell that was killed left its checkpoints beside ``folder``: this one goes on from there.

    Args:
        cell: what to do, with the digests of base and data.
        folder: where the outcome goes, replacing what is there.
        adapter: where the trained adapter goes; None measures its size and drops it.
        say: told about the progress.
        dtype: what the adapter is saved in.
        materials: base and data, where other cells of this process have loaded them.
        every: how often a checkpoint is kept: steps or a time, as of `lora_clf.training.checkpoints.Checkpoints`.

    Raises:
        DataError: the same arguments now give other data.
        BaseError: the same name is now another base.
        CheckpointError: another process is at the same cell.
    """
    from lora_clf.base.reading import Reading
    from lora_clf.training.settings import TrainSettings

    materials = materials or Materials()
    base = materials.base(cell.base)
    data = materials.data(cell)
    check(cell, base, data)
    base = cell.base.answering(base, data.labels)
    held, loading = current_bytes(), peak_bytes()
    restarted = restart_peak()
    kept = checkpoints_of(folder, cell.digest)
    settings = TrainSettings(**cell.training, seed=cell.seed)
    reading = Reading.restored(cell.reading)
    told = throttled(say) if say else None
    result = train_on(base, data, cell.contender.tuner(), settings, reading, kept, every, told)
    peak = peak_bytes()
    with tempfile.TemporaryDirectory() as place:
        saved = Path(adapter or Path(place) / "adapter")
        if adapter is not None:
            adapter.parent.mkdir(parents=True, exist_ok=True)
            digest_file(adapter).unlink(missing_ok=True)  # until the new one is whole, it is no cell's
        # Not the result's own `save`, which drops the checkpoints: they stay until all is written.
        result.cast(dtype).adapter.save(saved, force=True, dtype=dtype)
        if adapter is not None:
            digest_file(adapter).write_text(f"{mark_of(cell.digest, dtype)}\n", encoding="utf-8")
        adapter_bytes = folder_bytes(saved)
        tensor_bytes = (saved / "adapter_model.safetensors").stat().st_size
    said = softmax if data.task.softmax else np.asarray
    answering = result.adapter.header.answering
    outcome = Outcome(
        digest=cell.digest,
        label=cell.contender.label,
        strategy=cell.contender.strategy,
        settings=cell.contender.settings,
        seed=cell.seed,
        split_seed=cell.split_seed,
        fold=cell.fold,
        trainable_parameters=result.trainable_parameters,
        total_parameters=result.total_parameters,
        share=result.share,
        adapter_bytes=adapter_bytes,
        tensor_bytes=tensor_bytes,
        seconds=result.training_seconds - result.prefix_seconds,
        cold_seconds=result.training_seconds,
        total_seconds=result.seconds,
        peak_memory_bytes=max(loading, peak),
        training_memory_bytes=max(0, peak - held) if restarted else 0,
        device_memory_bytes=_device_memory(base),
        history=result.history,
        best_epoch=result.best_epoch,
        training=dict(result.adapter.header.training),
        environment=environment(base),
        scores={"validation": result.validation, "test": result.test},
        test=predictions_of(data, data.test, said(result.test_logits)),
        validation=predictions_of(data, data.validation, said(result.validation_logits)),
        k=cell.k,
        flops=_flops(result, base, data),
        texts_per_second=_throughput(result, data) if cell.k is None else None,
        diagnosis=[finding.as_dict() for finding in result.diagnosis if finding.name != SLOW],
        task=None if data.task.softmax else {"labels": list(answering.labels), "settings": answering.settings()},
    )
    write_outcome(outcome, folder)
    shutil.rmtree(kept, ignore_errors=True)
    return outcome


def _flops(result: Result, base: Base, data: Dataset) -> float:
    from lora_clf.training.flops import spent

    lengths = result.adapter.encode(data.train.texts).lengths
    return spent(result.adapter.tuned, lengths, len(result.history))


def _throughput(result: Result, data: Dataset) -> float | None:
    """Texts that are labelled in a second, of some test texts, after a few that warm up."""
    texts = list(data.test.texts[:TIMED_TEXTS])
    if not texts:
        return None
    result.adapter.predict(texts[:8])
    begin = time.perf_counter()
    result.adapter.predict(texts)
    return len(texts) / max(time.perf_counter() - begin, 1e-9)


def check(cell: Cell, base: Base, data: Dataset) -> None:
    """Hold base and data to what the comparison began with.

    Raises:
        DataError, BaseError: they were changed meanwhile.
    """
    if base.digest != cell.base_digest or base.tokenizer_digest != cell.tokenizer_digest:
        raise BaseError(
            f"The base {base.name} has digest {base.digest[:12]} and tokenizer {base.tokenizer_digest[:12]}; "
            f"the comparison began with {cell.base_digest[:12]} and {cell.tokenizer_digest[:12]}. Was it changed "
            "meanwhile? Start the comparison again."
        )
    if data.digest != cell.data_digest:
        raise DataError(
            f"The data {data.name} has digest {data.digest[:12]}; the comparison began with "
            f"{cell.data_digest[:12]}. Was the file changed meanwhile? Start the comparison again."
        )


def _device_memory(base: Base) -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated(base.device)) if base.device.type == "cuda" else None


def throttled(say: Say) -> Callable[[Progress], None]:
    """Hand on some of the progress of a run, not all of it."""
    last = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY or progress.step == progress.steps:
            last = now
            say({"event": "progress", **asdict(progress)})

    return tell
