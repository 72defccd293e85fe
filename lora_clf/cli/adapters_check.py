"""`lora-clf adapters verify | diff`: whether an adapter is what it was, and what tells two apart."""

from __future__ import annotations

import typer

app = typer.Typer(add_completion=False)
