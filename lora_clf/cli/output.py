"""What commands print: tables for people, one JSON document for programs, progress and remarks on stderr.

In a terminal a table is drawn by rich; in a pipe it is plain aligned text that nothing wraps or cuts.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lora_clf.cli.failure import say, still
from lora_clf.figures import bytes_text

if TYPE_CHECKING:
    from lora_clf.training.result import Progress


MINUTE = 60.0  # seconds between two lines about progress
WIDTH = 90  # characters of a text in a table of mistakes


def document(value: object) -> None:
    """Print one JSON document: the whole of stdout under ``--json``."""
    # ASCII, so that any terminal and any lone surrogate in a text can be printed.
    print(json.dumps(finite(value), indent=2, allow_nan=False))


def documents(values: Iterable[object]) -> None:
    """Print one JSON document, the list of ``values``, as they come: the same bytes as `document` prints."""
    begin = "[\n  "
    for value in values:
        print(begin + json.dumps(finite(value), indent=2, allow_nan=False).replace("\n", "\n  "), end="")
        begin = ",\n  "
    print("[]" if begin[0] == "[" else "\n]")


def finite(value: Any) -> Any:
    """``value`` in plain JSON types; numbers that JSON does not have become null."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def line(text: str = "") -> None:
    """Print a line for people; in a terminal what would move its cursor is spelt out."""
    print(still(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """Say something that is no result: on stderr."""
    say(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table; columns in which every cell is a number are aligned right."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [bool(cells) and all(_numeric(row[place]) for row in cells) for place in range(len(columns))]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=Text(still(title)) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
        for name, numeric in zip(columns, right, strict=True):
            drawn.add_column(Text(still(name)), justify="right" if numeric else "left")
        for row in cells:
            drawn.add_row(*(Text(still(value)) for value in row))  # Text: brackets are not markup here
        Console().print(drawn)
        return
    if title:
        print(title)
    widths = [max(len(row[place]) for row in [list(columns), *cells]) for place in range(len(columns))]
    for row in [list(columns), *cells]:
        print(
            "  ".join(
                value.rjust(width) if numeric else value.ljust(width)
                for value, width, numeric in zip(row, widths, right, strict=True)
            ).rstrip()
        )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return one_line(str(value))


def one_line(text: str) -> str:
    """``text`` on one line: whatever would break it is a space."""
    return " ".join(text.split())


def shortened(text: str) -> str:
    """The beginning of ``text`` on one line, as it stands in a table."""
    plain = one_line(text)
    return plain if len(plain) <= WIDTH else f"{plain[:WIDTH].rstrip()} ..."


def _numeric(text: str) -> bool:
    return text == "-" or text.rstrip("%").rstrip().replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def percent(value: float | None) -> str:
    """A share of one as percent with two digits."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def share(value: float | None) -> str:
    """A share of one as percent with two digits that mean something, however small it is."""
    return "-" if value is None else f"{100 * value:.{3 if value >= 0.1 else 2}g} %"


def measured(value: float | None, is_share: bool) -> str:
    """A score: a share as percent, any other with four digits, empty where there is none."""
    if is_share:
        return percent(value)
    return "" if value is None else f"{value:.4f}"


def size(count: int | None) -> str:
    """A number of bytes for people."""
    return "-" if count is None else bytes_text(count)


def seconds(value: float) -> str:
    """A time for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def training_progress() -> Iterator[Callable[[Progress], None]]:
    """A callback for the training loop: a line an epoch, in a terminal also a bar with time left."""
    if not sys.stderr.isatty():
        yield lambda now: _epoch_line(now, note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("training", total=None, epoch="1", loss=math.nan)

        def drawn(now: Progress) -> None:
            epoch = f"{now.epoch}/{now.epochs}"
            bar.update(task, completed=now.step, total=now.steps, epoch=epoch, loss=now.loss)
            _epoch_line(now, lambda text: console.print(text, highlight=False, markup=False))

        yield drawn


@contextmanager
def row_progress(total: int) -> Iterator[Callable[[int], None]]:
    """A callback for rows that are done: in a terminal a bar with time left, elsewhere a line a minute."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows,"), TimeRemainingColumn(), TextColumn("left"))
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("rows", total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    begin = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= MINUTE and done < total:
            told = now
            note(f"{done:,} of {total:,} rows, {seconds((now - begin) * (total - done) / done)} left")

    yield tell


def _epoch_line(now: Progress, tell: Callable[[str], None]) -> None:
    """Say how an epoch ended: once, with the validation that follows it."""
    if now.validation is not None:
        accuracy, loss = now.validation.get("accuracy"), now.validation.get("loss")
        shown = f"accuracy {percent(accuracy)}" if accuracy is not None or loss is None else f"loss {loss:.4f}"
        tell(
            f"epoch {now.epoch}/{now.epochs}: training loss {now.loss:.4f}, validation {shown}, {seconds(now.seconds)}"
        )
