"""A document of headings, paragraphs, tables and plots, as Markdown or as one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from lora_clf.reports.table import escaped, markdown_table


@dataclass(frozen=True)
class Heading:
    """A section begins."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; ``answer`` is the one that the page is about."""

    text: str
    answer: bool = False


@dataclass(frozen=True)
class Notes:
    """Several short remarks."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table: ``strong`` rows stand out, before ``rule`` rows is a line; ``left`` as in `markdown_table`."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[bool] = (True,)
    strong: frozenset[int] = frozenset()
    rule: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """A plot: the file beside the Markdown, and the drawing inside the page."""

    title: str
    file: str
    svg: bytes = field(repr=False)


LONG = 16  # letters of a heading, from which on it may take two lines

Block = Heading | Paragraph | Notes | Grid | Plot


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The document in Markdown; plots are the files beside it."""
    parts = [f"# {escaped(title)}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {escaped(text)}")
            case Paragraph(text, answer):
                parts.append(f"**{escaped(text)}**" if answer else escaped(text))
            case Notes(lines):
                parts.append("\n".join(f"- {escaped(line)}" for line in lines))
            case Grid(headings, rows, left):
                parts.append(markdown_table([escaped(h) for h in headings], rows, left).rstrip())
            case Plot(text, file):
                parts.append(f"![{escaped(text)}]({file})")
    return "\n\n".join(parts) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """The document as one page that needs no network, for screen, phone and print."""
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(_html(block) for block in blocks))


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text, answer):
            words = escape(text).replace(" %", "&nbsp;%")
            return f'<p class="answer">{words}</p>' if answer else f"<p>{words}</p>"
        case Notes(lines):
            return '<ul class="notes">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
        case Plot(text, _, svg):
            data = base64.b64encode(svg).decode()
            return f'<figure><img alt="{escape(text)}" src="data:image/svg+xml;base64,{data}"></figure>'
        case Grid():
            return _grid(block)


def _grid(grid: Grid) -> str:
    words = {place for place, holds in enumerate(grid.left) if holds}

    def cell(tag: str, text: str, place: int) -> str:
        kinds = ["word"] * (place in words) + ["long"] * (tag == "th" and len(text) > LONG)
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{kind}{scope}>{escape(text).replace(' %', '&nbsp;%')}</{tag}>"

    head = "".join(cell("th", text, place) for place, text in enumerate(grid.headings))
    lines = []
    for number, row in enumerate(grid.rows):
        classes = [name for name, which in (("strong", grid.strong), ("rule", grid.rule)) if number in which]
        mark = f' class="{" ".join(classes)}"' if classes else ""
        cells = "".join(cell("td", text, place) for place, text in enumerate(row))
        lines.append(f"<tr{mark}>{cells}</tr>")
    body = "\n".join(lines)
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


_STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #5a5a5a; --line: #d9d9d9; --wash: #f2f6fa;
  --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 1.5rem 1.1rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
.answer { font-size: 1.15rem; line-height: 1.5; padding: .9rem 1.1rem; margin: 0 0 1.2rem;
  background: var(--wash); border-left: 5px solid var(--mark); }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .55rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid #9a9a9a; vertical-align: bottom; }
th.long { white-space: normal; min-width: 7.5rem; line-height: 1.3; }
.word { text-align: left; }
td.word:last-child { white-space: normal; min-width: 14rem; max-width: 40rem; overflow-wrap: anywhere; }
.scroll .word:first-child { position: sticky; left: 0; background: #fff; }
tr.strong td { font-weight: 650; }
tr.rule td { border-top: 2px solid #9a9a9a; }
.notes { color: var(--soft); font-size: .88rem; padding-left: 1.1rem; max-width: 52rem;
  overflow-wrap: anywhere; }
.notes li { margin: .15rem 0; }
figure { margin: 1rem 0; }
figure img { width: 100%; max-width: 46rem; height: auto; display: block; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  main { padding: 1rem .8rem 3rem; }
  .answer { font-size: 1.05rem; }
  th, td { padding: .32rem .5rem; }
}
@media print {
  @page { margin: 14mm; }
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: 7.2pt; }
  th.long { min-width: 0; }
  td:first-child { white-space: nowrap; }
  th, td { padding: 2pt 4pt; white-space: normal; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  figure img { max-width: 12.5cm; }
  .answer { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
""".strip()

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
