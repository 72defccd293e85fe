"""Same seed, same bytes: in another process, with another hash seed, after other random numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_clf.tuners import strategies
from tests.pickles import search_path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import hashlib, json, sys, tempfile
from pathlib import Path
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from tests.bases import tiny_base
from tests.training.test_loop import toy

digests = {}
for name in strategies():
    options = {"dropout": 0.2} if "dropout" in strategies()[name].flags() else {}
    settings = TrainSettings(epochs=2, batch_size=8, seed=3)
    result = train(tiny_base("bert"), toy(), create(name, **options), settings)
    with tempfile.TemporaryDirectory() as place:
        folder = result.save(Path(place) / "adapter")
        digests[name] = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}
print(json.dumps(digests))
"""


@pytest.fixture(scope="module")
def digests() -> list[dict[str, dict[str, str]]]:
    """Digests of every file of every strategy's adapter, from two processes."""
    found = []
    for seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": search_path(ROOT), "OMP_NUM_THREADS": "1"}
        out = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(out.stdout.splitlines()[-1]))
    return found


@pytest.mark.parametrize("strategy", list(strategies()))
def test_same_seed_same_bytes_in_two_processes(strategy: str, digests: list[dict[str, dict[str, str]]]) -> None:
    first, second = (run[strategy] for run in digests)
    assert set(first) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert first == second


def test_the_strategies_differ(digests: list[dict[str, dict[str, str]]]) -> None:
    models = [files["adapter_model.safetensors"] for files in digests[0].values()]
    assert len(models) == len(strategies()) >= 5 and len(set(models)) == len(models)
