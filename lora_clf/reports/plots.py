"""The plots of a report: what there is to draw, and its files beside the report and inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lora_clf.data.cache import write_whole
from lora_clf.errors import unknown
from lora_clf.evaluation.drawing import FORMATS, file_of, style
from lora_clf.reports import evidence_plots
from lora_clf.reports.accuracy_plots import AXES, draw
from lora_clf.reports.curve_plot import curves
from lora_clf.reports.page import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lora_clf.comparison.comparison import Comparison

Found = TypeVar("Found")  # a comparison


@dataclass(frozen=True)
class Drawing(Generic[Found]):
    """One plot.

    Attributes:
        name: of its file.
        title: for people.
        draw: draws it; None where there is nothing to draw.
        dpi: dots an inch.
        settings: matplotlib's, in which it is drawn.
    """

    name: str
    title: str
    draw: Callable[[Found], Figure | None]
    dpi: int
    settings: Callable[[], Any] = style


ACCURACY: tuple[Drawing[Comparison], ...] = tuple(
    Drawing(axis.name, axis.title, partial(draw, axis=axis), 160) for axis in AXES
)
EVIDENCE: tuple[Drawing[Comparison], ...] = (
    Drawing("confusion", "Which class is taken for which, % of each true class", evidence_plots.confusions, 140),
    Drawing("reliability", "Is it right as often as it says?", evidence_plots.reliabilities, 140),
    Drawing("precision-recall", "Precision against recall", evidence_plots.precision_recalls, 140),
    Drawing("training", "How training went", evidence_plots.trainings, 140),
)
CURVE: Drawing[Comparison] = Drawing(
    "learning-curve", "Accuracy and macro-F1 against the number of examples", curves, 160
)
DRAWINGS = (*ACCURACY, *EVIDENCE, CURVE)


def check_format(name: str) -> str:
    """``name`` itself.

    Raises:
        UsageError: it is no format that plots can be written in.
    """
    if name not in FORMATS:
        raise unknown("plot format", name, FORMATS)
    return name


def rendered(found: Found, drawing: Drawing[Found], kind: str) -> bytes | None:
    """One plot as the bytes of a file, the same for the same comparison; None where there is nothing to draw."""
    import matplotlib

    with matplotlib.rc_context(drawing.settings()):  # back to the user's own settings at the end of the block
        figure = drawing.draw(found)
        return None if figure is None else file_of(figure, kind, drawing.dpi)


def write_plots(found: Found, drawings: Sequence[Drawing[Found]], folder: Path, kind: str) -> None:
    """Write into ``folder`` the plots that have something to show.

    Raises:
        UsageError: plots cannot be written in that ``kind``.
    """
    check_format(kind)
    for drawing in drawings:
        if (content := rendered(found, drawing, kind)) is not None:
            write_whole(folder / f"{drawing.name}.{kind}", content)


def shown(found: Found, drawings: Sequence[Drawing[Found]], kind: str) -> Iterator[Plot]:
    """The same plots as they stand in a report whose files beside it are of that ``kind``."""
    for drawing in drawings:
        if (svg := rendered(found, drawing, "svg")) is not None:
            yield Plot(drawing.title, f"{drawing.name}.{kind}", svg)
