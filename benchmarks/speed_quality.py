"""Do both sides of a speed job come to the same? What they predict, or, on random weights, what they compute.

Each side trains to its end on the same split and predicts every row of the source. *Net flips* are the rows that
theirs gets right and ours wrong, less those the other way round, as a share of all rows; the interval counts near
copies as one. They are given for all rows and for those whose text is not in training.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from our_training import OurTraining
from paired import read_json, short, write_json
from trainer_recipe import TrainerRecipe

from lora_clf.data.near_copies import components
from lora_clf.evaluation.intervals import paired_difference
from lora_clf.experiment.environment import code_digest
from lora_clf.inference.precision import resolve_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from speed_bench import Bench
    from speed_jobs import Job

    from lora_clf.data.corpus import Part

NET_FLIPS = 0.002  # of all rows, at most
MARGIN = 0.005  # of accuracy on rows not seen in training, that a non-inferior side may lose at most
ROUNDING = 1e-5  # relative, between a run from kept states and one without


def checked(job: Job, bench: Bench, rows: Part, work: Path, seeds: int) -> dict[str, Any] | None:
    """What --quality says of a job; None where there is nothing to compare."""
    if job.quality is None:
        return None
    if job.quality == "cache":
        return kept_or_not(bench)
    sides = job.sides(replace(bench, steps=None, evaluated=True))
    right = {
        name: np.stack([predictions(sides[name], bench, rows, work, seed) for seed in range(seeds)])
        == np.array([bench.data.labels.index(label) for label in rows.labels])
        for name in ("ours", "theirs")
    }  # each (S, N)
    known = set(bench.data.train.texts)
    groups = components(rows.texts)
    unseen = np.array([text not in known for text in rows.texts])
    found: dict[str, Any] = {"kind": job.quality, "seeds": seeds}
    for name, chosen in (("all", np.ones(len(rows), dtype=bool)), ("unseen", unseen)):
        ours, theirs = right["ours"][:, chosen], right["theirs"][:, chosen]
        gap = paired_difference(theirs.astype(float), ours.astype(float), groups[chosen])
        found[name] = {
            "rows": int(chosen.sum()),
            "ours": _short(ours.mean()),
            "theirs": _short(theirs.mean()),
            "net_flips": _short(gap.value),
            "low": _short(gap.low),
            "high": _short(gap.high),
        }
    equal = found["all"]["net_flips"] <= NET_FLIPS
    return {**found, "met": equal if job.quality == "equal" else found["unseen"]["high"] <= MARGIN}


def predictions(side: Any, bench: Bench, rows: Part, work: Path, seed: int) -> NDArray[np.int64]:
    """The classes that a side predicts after training with ``seed``; kept, because several jobs share a side."""
    if isinstance(side, TrainerRecipe):
        what: list[Any] = ["trainer", side.trains, side.tuned, side.learning_rate, side.epochs, side.bf16]
    else:
        assert isinstance(side, OurTraining)
        precision = resolve_precision(side.precision, bench.base.device)
        what = [side.tuner.name, side.tuner.settings(), side.epochs, precision, side.settings]
    told = [what, seed, bench.base.digest, bench.data.digest, len(rows), code_digest()]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    kept = work / "quality" / f"{key[:24]}.json"
    if not (found := read_json(kept)):
        side.start_at(seed)
        side()
        # Longest first: a Trainer pads a batch to its longest.
        order = np.argsort([-len(text) for text in rows.texts], kind="stable")
        classes = np.empty(len(rows), dtype=np.int64)
        classes[order] = side.predict([rows.texts[place] for place in order])
        found = {"classes": classes.tolist()}
        write_json(kept, found)
    return np.array(found["classes"])


def kept_or_not(bench: Bench) -> dict[str, Any]:
    """The losses and logits of last-block in fp32 with the frozen prefix kept and without, from equal weights.

    The learning rate is too small to move a weight, so that every step and evaluation compares the same ones.
    """
    from lora_clf.inference.runner import Runner
    from lora_clf.tuners.last_block import LastBlock

    few = bench.small()
    tokens = {name: few.base.encode(part.texts) for name, part in few.data.parts.items()}
    losses, logits = [], []
    for cache in (True, False):
        settings: dict[str, Any] = {"cache": cache, "lr": 1e-12, "weight_decay": 0.0, "warmup": 0.0}
        side = OurTraining(few.base, few.data, LastBlock(), precision="fp32", epochs=1, evaluated=True, **settings)
        side()
        assert side.result is not None
        entry = side.result.history[0]
        losses.append(np.array([entry["train_loss"], entry["validation"]["loss"]]))
        tuned = LastBlock().prepare(few.base.view(len(few.data.labels)))
        logits.append(Runner(few.base, tuned, "fp32", tokens, cache=cache).all_logits("validation"))
    relative = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in (losses, logits)]
    return {
        "kind": "cache",
        "rows": len(few.data.train),
        "relative_losses": short(relative[0], 2),
        "relative_logits": short(relative[1], 2),
        "met": max(relative) <= ROUNDING,
    }


def _short(value: Any) -> float:
    return round(float(value), 6)
