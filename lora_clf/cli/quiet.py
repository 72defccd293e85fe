"""Keeps third-party libraries from writing into a command's output: their bars, advice and warnings."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_LOUD = ("transformers", "huggingface_hub", "peft", "torch", "tokenizers", "sklearn", "matplotlib", "pyarrow")
_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def quiet_third_parties() -> None:
    """Called by a command before it imports anything heavy; what the user set in the environment stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in _LOUD:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        logging.getLogger(name).setLevel(logging.ERROR)
    if "transformers" in sys.modules:  # read its environment when it was imported, before us
        from transformers.utils import logging as its_logging

        its_logging.set_verbosity_error()
        its_logging.disable_progress_bar()
