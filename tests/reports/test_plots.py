from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.errors import UsageError
from lora_clf.evaluation.drawing import families, style
from lora_clf.evaluation.fit_plot import plot_fit
from lora_clf.reports.accuracy_plots import AXES, draw
from lora_clf.reports.plots import ACCURACY, rendered, write_plots
from tests.comparison.invented import PARAMETERS, invented

CASES = {
    "usual": {"head-only": 0.86, "last-block": 0.89, "full": 0.92, "lora": 0.91, "lora-scratch": 0.91},
    "all alike": dict.fromkeys(PARAMETERS, 0.97),
    "one": {"lora": 0.9},
    "perfect": {"lora": 1.0, "lora-scratch": 1.0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_no_name_covers_another_or_leaves_the_plot(case: str, axis) -> None:  # type: ignore[no-untyped-def]
    found = invented(CASES[case], baseline=0.9)
    figure = draw(found, axis)
    assert figure is not None
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = {text.get_text(): text for text in axes.texts if text.get_text() in CASES[case]}
    assert set(names) == set(CASES[case])
    frame = axes.get_window_extent()
    boxes = {name: text.get_window_extent() for name, text in names.items()}
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, name
        for other, second in boxes.items():
            assert name == other or not box.overlaps(second), (name, other)


def test_plots_are_written_in_each_format_without_touching_global_state(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    found = invented(CASES["usual"])
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for kind, begin in begins.items():
        write_plots(found, ACCURACY, tmp_path, kind)
        files = sorted(tmp_path.glob(f"*.{kind}"))
        assert [file.name for file in files] == [f"{axis.name}.{kind}" for axis in AXES]
        assert all(file.read_bytes().startswith(begin) for file in files)
    assert dict(matplotlib.rcParams) == before
    assert rendered(found, ACCURACY[0], "png") == (tmp_path / "accuracy-parameters.png").read_bytes()
    with pytest.raises(UsageError, match="svg"):
        write_plots(found, ACCURACY, tmp_path, "gif")


def test_fonts_of_the_system_have_the_letters_that_the_first_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_clf.evaluation.drawing.COMMON", ("No Such Font", "cmb10"))
    families.cache_clear()
    try:
        assert families() == style()["font.family"] == ["DejaVu Sans", "cmb10"]
        assert families("sans-serif") == ["sans-serif", "cmb10"]
    finally:
        families.cache_clear()


@pytest.mark.parametrize("quiet", [False, True])
def test_a_letter_that_no_font_has_is_no_warning_in_a_command(
    quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_clf.evaluation.drawing.COMMON", ())
    families.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if quiet:
            quiet_third_parties()
        plot_fit(np.arange(3.0), np.arange(3.0), "\u661f", tmp_path / "fit.png")
    families.cache_clear()
    assert bool(said) is not quiet
