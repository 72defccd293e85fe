"""The two sides of `benchmarks/kills.py`: this loop with its checkpoints, and transformers' Trainer with its own.

Each trains a tiny model in a folder of its own: begun there, or gone on from what a killed run left there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tracing import killed_at_call

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.checkpoint import Checkpoint

BATCH, EPOCHS, RATE, SEED = 8, 2, 1e-3, 3
MOST = 2000  # calls of one save


def tree_digest(folder: Path) -> str:
    """A digest of names and bytes of everything in ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b"/"
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


class Ours:
    """One strategy of this library, with a checkpoint after every step."""

    def __init__(self, base: Base, data: Dataset, strategy: str) -> None:
        from lora_clf.training.settings import TrainSettings
        from lora_clf.tuners import create, strategies

        flags = {"dropout": 0.1} if "dropout" in strategies()[strategy].flags() else {}
        self.base, self.data, self.tuner = base, data, create(strategy, **flags)
        self.settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, lr=RATE, seed=SEED, precision="fp32")

    def train(self, place: Path) -> str:
        """Begin or go on in ``place``, to the end; the digest of the adapter's files."""
        self._result(place / "kept").save(place / "adapter", force=True)
        return tree_digest(place / "adapter")

    def newest_is_whole(self, place: Path) -> bool:
        """Whether what a killed run left can be gone on from."""
        from lora_clf.errors import CheckpointError
        from lora_clf.training.checkpoint import read_checkpoint
        from lora_clf.training.checkpoints import generations

        there = generations(place / "kept")
        try:
            return not there or bool(read_checkpoint(there[-1]).facts)
        except CheckpointError:
            return False

    def _result(self, kept: Path) -> Any:
        from lora_clf.training.checkpoints import Checkpoints
        from lora_clf.training.loop import train

        how = Checkpoints(kept, every=1, resume=True)
        return train(self.base, self.data, self.tuner, self.settings, checkpoints=how)

    def checkpoint_calls(self, place: Path, before: int) -> dict[str, Any]:
        """Kill the save of a checkpoint at each of its calls, with ``before`` checkpoints written until then.

        What is left is the old or the new one; from both the run is then gone on with.
        """
        from lora_clf.training.checkpoints import CheckpointFolder, Checkpoints

        real, found = CheckpointFolder.write, Points(place)

        def write(folder: CheckpointFolder, checkpoint: Checkpoint) -> None:
            if folder.written == before and not found.names:
                old = _checkpoint_digest(folder.path, place / "look")
                shutil.copytree(folder.path, place / "reference", ignore=shutil.ignore_patterns("lock"))
                with CheckpointFolder(Checkpoints(place / "reference", resume=True)) as reference:
                    reference.newest()
                    real(reference, checkpoint)
                new = _checkpoint_digest(place / "reference", place / "look")

                def save() -> None:
                    with CheckpointFolder(Checkpoints(found.trial, resume=True)) as twin:
                        twin.newest()
                        real(twin, checkpoint)

                found.kill_each(folder.path, save, {old: "old", new: "new"}, _checkpoint_digest)
            real(folder, checkpoint)

        CheckpointFolder.write = write  # type: ignore[assignment,method-assign]
        try:
            whole = self._result(place / "kept")
        finally:
            CheckpointFolder.write = real  # type: ignore[method-assign]
        whole.save(place / "adapter")
        expected = tree_digest(place / "adapter")
        ends = []
        for which, kept in found.samples.items():
            self._result(kept).save(place / which)
            ends.append(tree_digest(place / which) == expected)
        return {**found.summary(), "gone_on_from": sorted(found.samples), "end_with_equal_bytes": all(ends)}

    def adapter_calls(self, place: Path, overwriting: bool) -> dict[str, Any]:
        """Kill the save of an adapter at each of its calls, to a free place or over an older adapter."""
        result, found = self._result(place / "kept"), Points(place)
        result.save(place / "new" / "adapter")
        there = place / "there"
        there.mkdir()
        known = {_adapter_digest(there): "old", _adapter_digest(place / "new"): "new"}
        if overwriting:
            result.adapter.cast("bf16").save(there / "adapter", dtype="bf16")
            known = {_adapter_digest(there): "old", _adapter_digest(place / "new"): "new"}
        save = partial(result.adapter.save, found.trial / "adapter", force=True)
        found.kill_each(there, save, known, lambda trial, _: _adapter_digest(trial))
        return found.summary()


class Points:
    """What was left after each call at which a save was killed.

    Attributes:
        trial: the folder that the save is about, made anew for each call.
        names: the calls.
        samples: a copy of what was left, for each kind of it.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.trial = place, place / "trial"
        self.names: list[str] = []
        self.left: list[str] = []
        self.samples: dict[str, Path] = {}

    def kill_each(
        self, start: Path, save: Callable[[], object], known: dict[str, str], digest: Callable[[Path, Path], str]
    ) -> None:
        """Kill ``save``, which begins with a copy of ``start``, at its first call, its second, and so on."""
        for call in range(1, MOST):
            shutil.rmtree(self.trial, ignore_errors=True)
            shutil.copytree(start, self.trial, ignore=shutil.ignore_patterns("lock"))
            name = killed_at_call(save, call)
            which = known.get(digest(self.trial, self.place / "look"), "neither")
            if name is None:
                assert which == "new"
                return
            self.names.append(name)
            self.left.append(which)
            if which not in self.samples:
                self.samples[which] = self.place / f"sample-{which}"
                shutil.copytree(self.trial, self.samples[which])

    def summary(self) -> dict[str, Any]:
        """How many calls, which, and what was left after them."""
        counts = {which: self.left.count(which) for which in ("old", "new", "neither")}
        return {"calls": len(self.names), "names": sorted(set(self.names)), "left": counts}


def _checkpoint_digest(kept: Path, look: Path) -> str:
    """The digest of what a run would go on from; a copy is opened, since opening sweeps."""
    from lora_clf.errors import CheckpointError
    from lora_clf.training.checkpoints import CheckpointFolder, Checkpoints

    shutil.rmtree(look, ignore_errors=True)
    shutil.copytree(kept, look, ignore=shutil.ignore_patterns("lock"))
    try:
        with CheckpointFolder(Checkpoints(look, resume=True)) as folder:
            found = folder.newest()
            if any(name.startswith(".") for name in os.listdir(look)):
                return "swept in vain"
    except CheckpointError as error:
        return str(error)
    if found is None:
        return "none"
    facts = {name: value for name, value in found.facts.items() if name != "seconds"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for stem in sorted(found.tensors):
        for name in sorted(found.tensors[stem]):
            digest.update(f"{stem}/{name}".encode() + found.tensors[stem][name].numpy().tobytes())
    return digest.hexdigest()


def _adapter_digest(folder: Path) -> str:
    from lora_clf.adapters.file import read_folder
    from lora_clf.errors import AdapterNotFoundError, LoraClfError

    try:
        return read_folder(folder / "adapter")[0].digest
    except AdapterNotFoundError:
        return "none"
    except LoraClfError as error:
        return str(error)


class Trainer:
    """transformers' Trainer on a model of the same size, with a checkpoint after every step."""

    def __init__(self, base: Base, data: Dataset) -> None:
        self.base, self.data = base, data

    def train(self, place: Path) -> str:
        """Begin or go on in ``place`` as its documentation says, to the end; the digest of the model's weights."""
        from transformers.trainer_utils import get_last_checkpoint

        out = place / "out"
        last = get_last_checkpoint(str(out)) if out.is_dir() else None
        trainer = self._trainer(out)
        trainer.train(resume_from_checkpoint=True if last else None)
        return self._digest(trainer)

    def newest_is_whole(self, place: Path) -> bool:
        """Not looked at: the Trainer has no way to tell."""
        return True

    def checkpoint_calls(self, place: Path, before: int) -> dict[str, Any]:
        """Kill the save of a checkpoint at each of its calls, and go on from what is left of it."""
        states: dict[str, Path] = {}
        left: list[str] = []
        names: list[str] = []
        trainer = self._trainer(place / "out")
        real = trainer._save_checkpoint

        def save_checkpoint(*args: Any, **named: Any) -> Any:
            if trainer.state.global_step == before + 1 and not names:
                for call in range(1, MOST):
                    trial = place / "trial" / "out"
                    shutil.rmtree(place / "trial", ignore_errors=True)
                    shutil.copytree(place / "out", trial) if (place / "out").is_dir() else trial.mkdir(parents=True)
                    trainer.args.output_dir = str(trial)
                    name = killed_at_call(partial(real, *args, **named), call)
                    trainer.args.output_dir = str(place / "out")
                    if name is None:
                        break
                    names.append(name)
                    left.append(tree_digest(trial))
                    if left[-1] not in states:
                        states[left[-1]] = place / f"state-{len(states)}"
                        shutil.copytree(place / "trial", states[left[-1]])
            return real(*args, **named)

        trainer._save_checkpoint = save_checkpoint
        trainer.train()
        expected = self._digest(trainer)
        ends: dict[str, str] = {}
        for digest, state in states.items():
            try:
                ends[digest] = "equal" if self.train(state) == expected else "other bytes"
            except Exception as error:
                ends[digest] = f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        ways = [ends[digest] for digest in left]
        failed = [way for way in ways if way not in ("equal", "other bytes")]
        return {
            "calls": len(names),
            "names": sorted(set(names)),
            "goes_on_with_equal_bytes": ways.count("equal"),
            "goes_on_with_other_bytes": ways.count("other bytes"),
            "cannot_go_on": len(failed),
            "errors": sorted({way.split(":")[0] for way in failed}),
        }

    def _trainer(self, out: Path) -> Any:
        import torch
        from trainer_recipe import encoded
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            PrinterCallback,
            TrainingArguments,
        )
        from transformers import Trainer as TheirTrainer
        from transformers.models.auto.tokenization_auto import AutoTokenizer

        logging.disable(logging.CRITICAL)
        torch.manual_seed(SEED)
        config = self.base.config.__class__(**{**self.base.config.to_dict(), "num_labels": len(self.data.labels)})
        model = AutoModelForSequenceClassification.from_config(config)
        arguments = TrainingArguments(
            output_dir=str(out),
            num_train_epochs=EPOCHS,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            save_strategy="steps",
            save_steps=1,
            save_total_limit=2,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=SEED,
        )
        tokenizer = AutoTokenizer.from_pretrained(self.base.folder)
        rows = encoded(self.base, self.data.train.texts, np.asarray(self.data.label_ids(self.data.train)))
        collator = DataCollatorWithPadding(tokenizer)
        trainer = TheirTrainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _digest(self, trainer: Any) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(trainer.model.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()
