"""What every Python that a test starts runs first: it puts the hook of tests/pickles.py on.

`tests/conftest.py` puts this folder on PYTHONPATH. A sitecustomize that the system has of its own runs behind it.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(spec: ModuleSpec | None) -> object:
    """Runs a module that is not among those imported yet."""
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pickles = run(importlib.util.spec_from_file_location("_lora_clf_pickles", HERE.parent / "pickles.py"))
pickles.watch()  # type: ignore[union-attr]
run(PathFinder.find_spec("sitecustomize", [folder for folder in sys.path if Path(folder).resolve() != HERE]))
