"""What the scripts' command lines share: flags, --table, --quick that leaves the results alone, errors in a line.

parser = script.parser(__doc__, "data", "base", "device", "quick", "table", out=OUT, device="cpu")
parser.add_argument("--windows", nargs="+")                   # what only this one has
flags = parser.parse_args(arguments)
return script.run(flags, lambda folder: measured(flags, folder), table)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paired import RESULTS, read_json

if TYPE_CHECKING:
    from lora_clf.base.base import Base

FLAGS: dict[str, dict[str, Any]] = {
    "adapter": {"type": Path, "action": "append", "help": "a folder; as often as you like"},
    "data": {"default": "sms-spam", "help": "sms-spam (fetched), or the path of its file or of another table"},
    "base": {"default": "minilm", "help": "minilm, gpt2, a folder or a Hub id"},
    "device": {"default": "auto"},
    "budget": {"type": float, "help": "seconds (of each job) after which nothing more begins; run it again to go on"},
    "seed": {"type": int, "default": 0, "help": "of whatever is drawn, as the order inside the blocks"},
    "quick": {"action": "store_true", "help": "as little as can be: to see that it runs, not for figures"},
    "table": {"action": "store_true", "help": "print the table of the result; measure and write nothing"},
}


def parser(doc: str | None, *shared: str, out: Path | None = None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with flags of `FLAGS`, which have other defaults where ``defaults`` says so, and ``--out``."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in shared:
        made.add_argument(f"--{name}", **FLAGS[name])
    if out is not None:
        made.add_argument("--out", type=Path, default=out, help=f"the result; {out.name} by default")
    made.set_defaults(**defaults)
    return made


def run(
    flags: argparse.Namespace,
    work: Callable[[Path], int | None],
    table: Callable[[dict[str, Any]], str] | None = None,
) -> int:
    """Do ``work`` in a temporary folder, or print ``table`` of the result with --table; the exit status.

    A mistake of the user is one line. With --quick the result goes to runs/quick in place of the results.
    """
    from lora_clf.cli.quiet import quiet_third_parties
    from lora_clf.errors import LoraClfError

    quiet_third_parties()
    if getattr(flags, "quick", False) and is_result(flags.out):
        flags.out = Path("runs") / "quick" / flags.out.name
    if table is not None and flags.table:
        print(table(read_json(flags.out)) if flags.out.is_file() else f"Not run yet: there is no {flags.out.name}.")
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            return work(Path(folder)) or 0
    except LoraClfError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status


def is_result(path: Path) -> bool:
    """Whether ``path`` is one of the published results."""
    return path.resolve().is_relative_to(RESULTS)


def base_of(adapter: Path, flags: argparse.Namespace) -> Base:
    """The base that --base names, else the adapter's own."""
    from lora_clf.adapters.adapter import read_header
    from lora_clf.adapters.base_search import find_base
    from lora_clf.base.base import load_base

    if flags.base:
        return load_base(flags.base, device=flags.device)
    return find_base(read_header(adapter), device=flags.device)
