"""The report of a comparison of numbers: its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.comparison.comparison import facts_of_data
from lora_clf.comparison.task_comparison import TaskComparison
from lora_clf.reports.task_report import write_task_report
from tests.comparison.invented import BASE, ENVIRONMENT
from tests.comparison.test_task_standing import comparison, numbers

FURTHER = {"rmse": 1.0, "r2": 0.5, "pearson": 0.7, "spearman": 0.7}


@pytest.fixture(scope="module")
def found() -> TaskComparison:
    """A comparison with all that a report asks for."""
    bare = comparison(numbers(1.0), 1.0)
    values = np.random.default_rng(0).normal(size=len(bare.test.rows)).tolist()
    runs = tuple(replace(run, scores=run.scores | FURTHER, values=values) for run in bare.runs)
    data = facts_of_data(bare.plan, bare.datasets)
    facts = {"base": BASE, "data": data, "environment": ENVIRONMENT, "command": None, "margin": 1.0}
    return replace(bare, runs=runs, facts=facts)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_two_reports_of_one_comparison_have_the_same_bytes(found: TaskComparison, kind: str, tmp_path: Path) -> None:
    names = {f"{name}.{kind}" for name in ("score", "fit-lora", "fit-TF-IDF")}
    names |= {"report.html", "report.md", "results.json", "results.csv"}
    for name in ("one", "two"):
        write_task_report(found, tmp_path / name, kind)
    assert {file.name for file in (tmp_path / "one").iterdir()} == names
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes(), name
        assert b"CreationDate" not in content and b"Software" not in content and b"<dc:date>" not in content, name
