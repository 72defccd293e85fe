"""Whether a mixed batch says what each adapter says alone and what PEFT says; for `speed_pool.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from paired import short
from pool_sides import BATCH, Peft, folders

if TYPE_CHECKING:
    from speed_pool import Bench


def agreement(bench: Bench) -> dict[str, Any]:
    """Logits of mixed batches against each adapter alone and against PEFT, and labels that differ."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.pool import AdapterPool

    ranks = (4, 8, 16, 64)
    places = folders(bench.base, bench.work, 8, ranks)
    pool = AdapterPool(bench.base)
    for number, place in enumerate(places):
        pool.add(f"n{number}", place)
    names = [f"n{number}" for number in np.random.default_rng(0).integers(0, len(places), len(bench.texts))]
    mixed = np.stack(pool.logits(bench.texts, names))
    alone, theirs = np.empty_like(mixed), np.empty_like(mixed)
    for number, place in enumerate(places):
        rows = [row for row, name in enumerate(names) if name == f"n{number}"]
        alone[rows] = load_adapter(place, bench.base, engine="lora-scratch").logits([bench.texts[row] for row in rows])
    model = Peft(bench.base, places, len(places), "fp32")
    order = np.argsort([-len(text) for text in bench.texts], kind="stable")
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH].tolist()
        theirs[rows] = model.logits([bench.texts[row] for row in rows], [names[row] for row in rows])
    found: dict[str, Any] = {"texts": len(bench.texts), "adapters": len(places), "ranks": list(ranks)}
    for side, other in (("alone", alone), ("peft", theirs)):
        drift = np.abs(mixed - other) / np.maximum(1.0, np.abs(other))
        flips = mixed.argmax(axis=1) != other.argmax(axis=1)
        # A label may change only where the two logits are closer than what both may drift.
        near = np.abs(other[:, 0] - other[:, 1]) <= 2e-4 * np.maximum(1.0, np.abs(other).max(axis=1))
        found[side] = {
            "largest_drift": short(drift.max()),
            "label_flips": int(flips.sum()),
            "label_flips_outside_margin": int((flips & ~near).sum()),
        }
    return found
