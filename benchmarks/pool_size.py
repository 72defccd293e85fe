"""What adapters take: in memory beside others, and as a folder; for `speed_pool.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paired import settle, short
from pool_sides import filled, folders

if TYPE_CHECKING:
    from speed_pool import Bench


def memory_of(bench: Bench, kind: str) -> dict[str, Any]:
    """Memory that one adapter more takes in this process: of "equal" ranks, or "mixed" from 4 to 64."""
    from lora_clf.adapters.adapter import read_header
    from lora_clf.experiment.memory import current_bytes

    ranks = (8,) if kind == "equal" else tuple(range(4, 65, 20 if bench.flags.quick else 1))
    count = bench.many[-1]
    places = folders(bench.base, bench.work, len(ranks) if kind == "mixed" else 4, ranks)
    before = min(count // 2, max(len(places), count // 10))
    raw = [4 * read_header(place).parameters for place in places]
    pool = filled(bench.base, places, before, "fp32")
    pool.predict(bench.batch[:4], [f"n{number}" for number in range(4)])
    settle()
    held = current_bytes()
    for number in range(before, count):
        pool.add(f"n{number}", places[number % len(places)])
    settle()
    grown = current_bytes() - held
    expected = sum(raw[number % len(places)] for number in range(before, count))
    return {
        "adapters": count,
        "bytes_each": round(grown / (count - before)),
        "over_raw": short(grown / expected),
    }


def folder(bench: Bench) -> dict[str, Any]:
    """What a folder takes over its raw tensor bytes."""
    from lora_clf.adapters.adapter import read_header

    found = {}
    for rank in (4, 8, 64):
        place = folders(bench.base, bench.work, 1, (rank,))[0]
        taken = sum(file.stat().st_size for file in place.iterdir())
        raw = 4 * read_header(place).parameters
        found[f"rank {rank}"] = {
            "bytes": taken,
            "raw": raw,
            "kib_beyond": short((taken - 1.01 * raw) / 1024),  # at most 16 to keep to the target
        }
    return found
