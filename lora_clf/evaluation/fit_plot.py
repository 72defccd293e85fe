"""How predicted numbers lie beside the true ones: a plot of each against the other, and of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lora_clf.data.cache import write_whole
from lora_clf.errors import UsageError
from lora_clf.evaluation.drawing import FORMATS, empty_figure, file_of, usual

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(file: Path) -> None:
    """Refuse a name that is no picture's.

    Raises:
        UsageError: its suffix is none of `FORMATS`.
    """
    endings = [f".{kind}" for kind in FORMATS]
    if file.suffix.lower() not in endings:
        raise UsageError(f"--plot {file.name}: expected a name that ends in {', '.join(endings)}.")


def plot_fit(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], name: str, file: Path) -> None:
    """Write predicted against true, and the residuals against predicted; the file is there whole or not at all.

    Args:
        truth: (N,) in the units of the data.
        predicted: (N,) likewise.
        name: of the number.
        file: where to; the suffix is the format.
    """
    import matplotlib

    with matplotlib.rc_context(usual()):
        content = file_of(draw_fit(truth, predicted, name), file.suffix.lower()[1:], dpi=130)
    write_whole(file, content)


def draw_fit(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], name: str) -> Figure:
    """The same as a figure."""
    figure = empty_figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    # Ratings are a few whole numbers: dots would hide one another on their lines.
    shift = np.random.default_rng(0).uniform(-0.5, 0.5, len(truth))
    step = float(np.diff(np.unique(truth)).min()) if len(np.unique(truth)) > 1 else 0.0
    few = len(np.unique(truth)) <= 20
    left.plot(truth + (0.5 * step * shift if few else 0.0), predicted, ".", markersize=3, alpha=0.4, color="#1f77b4")
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    left.plot(ends, ends, color="#555555", linewidth=1)
    left.set_xlabel(f"true {name}" + (" (spread sideways)" if few else ""))
    left.set_ylabel(f"predicted {name}")
    left.set_title("Predicted against true")
    right.plot(predicted, predicted - truth, ".", markersize=3, alpha=0.4, color="#1f77b4")
    right.axhline(0.0, color="#555555", linewidth=1)
    right.set_xlabel(f"predicted {name}")
    right.set_ylabel("predicted - true")
    right.set_title("Residuals")
    return figure
