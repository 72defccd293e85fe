"""Keeps third-party libraries from writing into a command's output: their bars, advice and warnings.

What our own modules log, as that a base is being fetched, a person should read.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

_LOUD = ("transformers", "huggingface_hub", "peft", "torch", "tokenizers", "sklearn", "matplotlib", "pyarrow")
# Of matplotlib, which lays them at the door of whoever calls it.
_MISSING_LETTERS = r"Glyph \d+ .*missing from|Matplotlib currently does not support"
_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class _Noted(logging.Handler):
    """Writes what is logged as a note, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """To stderr."""
        from lora_clf.cli.output import note

        note(record.getMessage())


_OURS = _Noted(logging.INFO)


def quiet_third_parties() -> None:
    """Called by a command before it imports anything heavy; what the user set in the environment stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    ours = logging.getLogger("lora_clf")
    ours.setLevel(logging.INFO)
    ours.addHandler(_OURS)
    for name in _LOUD:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=_MISSING_LETTERS)
    if "transformers" in sys.modules:  # read its environment when it was imported, before us
        from transformers.utils import logging as its_logging

        its_logging.set_verbosity_error()
        its_logging.disable_progress_bar()
