"""Same seed, same bytes: in another process, with another hash seed, after other random numbers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from tests.bases import tiny_base
from tests.pickles import search_path
from tests.training.test_loop import toy

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json
from tests.training.test_determinism import trained
print(json.dumps(trained()))
"""


def trained() -> dict[str, dict[str, str]]:
    """The digest of every file of every strategy's adapter."""
    found = {}
    for name, strategy in strategies().items():
        options = {"dropout": 0.2} if "dropout" in strategy.flags() else {}
        settings = TrainSettings(epochs=2, batch_size=8, seed=3)
        result = train(tiny_base("bert"), toy(24), create(name, **options), settings)
        with tempfile.TemporaryDirectory() as place:
            folder = result.save(Path(place) / "adapter")
            found[name] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    return found


@pytest.fixture(scope="module")
def digests() -> list[dict[str, dict[str, str]]]:
    """From this process, whatever it did before, and from one of its own with another hash seed."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": search_path(ROOT)}  # as many threads as here
    words = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
        here = trained()
        said, _ = child.communicate()
    assert child.returncode == 0
    return [here, json.loads(said.splitlines()[-1])]


@pytest.mark.parametrize("strategy", list(strategies()))
def test_same_seed_same_bytes_in_two_processes(strategy: str, digests: list[dict[str, dict[str, str]]]) -> None:
    first, second = (run[strategy] for run in digests)
    assert set(first) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert first == second


def test_the_strategies_differ(digests: list[dict[str, dict[str, str]]]) -> None:
    models = [files["adapter_model.safetensors"] for files in digests[0].values()]
    assert len(models) == len(strategies()) >= 5 and len(set(models)) == len(models)
