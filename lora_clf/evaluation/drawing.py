"""How plots are drawn: colours, settings and fonts, an empty figure, and the bytes of a file.

On figures of their own, without pyplot and its global state. Colours are those of Okabe and Ito (2008), told apart by
colour-blind people; the same figure gives the same bytes.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "h")
INK, FAINT = "#222222", "#8a8a8a"
DASHES = ((0, (6, 3)), (0, (1.5, 2)), (0, (6, 2, 1, 2)))
SAFE: Any = {  # matplotlib names its settings in a type of its own
    "svg.hashsalt": "lora-clf",  # else an SVG has other ids each time
    "text.parse_math": False,  # a label like $5-$10 is no formula
}
STYLE: Any = {
    **SAFE,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
UNSAID: Any = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # of each format
# Those that systems come with, for what DejaVu lacks: Chinese, Japanese, Korean, and scripts of the rest of the world.
COMMON = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "TakaoGothic", "NanumGothic"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "Leelawadee UI", "Nirmala UI"),
    *("PingFang SC", "PingFang HK", "Heiti TC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Noto Sans Thai", "Noto Sans", "FreeSans", "Segoe UI Symbol", "Noto Emoji", "Symbola", "Unifont"),
)


@cache
def families(first: str = "DejaVu Sans") -> list[str]:
    """``first`` and those of the common fonts that this system has, for the letters that ``first`` lacks."""
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [first, *(name for name in COMMON if name in there)]


def style() -> Any:
    """The settings of the house, with fonts of this system for letters that the first lacks."""
    return {**STYLE, "font.family": families()}


def usual() -> Any:
    """The user's own settings, but for what makes labels safe and files alike each time."""
    return {**SAFE, "font.family": families("sans-serif")}


def empty_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, to be drawn inside ``matplotlib.rc_context(style())`` or ``usual()``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, grid: Literal["both", "y"] = "both", colour: str = "#e8e8e8") -> None:
    """A faint grid behind the lines, and no frame above and on the right."""
    axes.grid(True, axis=grid, color=colour, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def file_of(figure: Figure, kind: str, dpi: int) -> bytes:
    """The figure as the bytes of a file of that kind, one of `FORMATS`; no date stands in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=dpi, metadata=UNSAID[kind])
    return stream.getvalue()
