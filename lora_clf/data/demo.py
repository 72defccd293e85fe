"""The demo corpus: text messages written for this project, part of the package, so that no network is needed.

``demo.md`` beside it is its datasheet.
"""

from __future__ import annotations

from importlib import resources

from lora_clf.data.reader import parse_table
from lora_clf.data.table import Table

LICENCE = "Apache-2.0"
ATTRIBUTION = "lora_clf demo corpus: text messages written for this project"


def read_demo() -> Table:
    """The demo corpus as a table with the columns ``text``, ``label`` (ham or spam) and ``hard``."""
    data = resources.files("lora_clf.data").joinpath("demo.csv").read_bytes()
    return parse_table(data, "demo.csv")
