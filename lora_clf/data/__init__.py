"""Labelled texts: reading any table, checking it, and splitting it without leaks.

``load_data`` does all of it; ``load_table`` and ``folds`` are for evaluation and cross-validation, ``export``
writes the parts as files, ``read_table`` reads a table that has no labels.
"""

from __future__ import annotations

from lora_clf.data.corpus import Part
from lora_clf.data.dataset import BALANCES, PROTOCOLS, Dataset, folds, load_data, load_table
from lora_clf.data.export import export
from lora_clf.data.leaks import LeakReport
from lora_clf.data.reader import read_table
from lora_clf.data.table import Table

__all__ = [
    "BALANCES",
    "PROTOCOLS",
    "Dataset",
    "LeakReport",
    "Part",
    "Table",
    "export",
    "folds",
    "load_data",
    "load_table",
    "read_table",
]
