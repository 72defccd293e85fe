r"""Which strategy for SMS spam? The comparison of `lora-clf compare`, from Python, on the real data.

    python benchmarks/compare_strategies.py --protocol book --seeds 3 --out benchmarks/results/sms-book.json
    python benchmarks/compare_strategies.py --seeds 5 --threads 1 --jobs 2 --out benchmarks/results/sms-default.json
    python benchmarks/compare_strategies.py --data trec-train.csv --test-file trec-test.csv --strategies all \
        --seeds 1 --out benchmarks/results/trec-every-method.json
    python benchmarks/compare_strategies.py --curve 16,32,64,all --out benchmarks/results/sms-curve.json

The result holds row numbers, labels, rounded probabilities and digests, never a message. Each run is kept in --work
at once; the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import script

from lora_clf.cli.compare import chosen, is_all
from lora_clf.comparison.arguments import BaseArguments
from lora_clf.comparison.comparison import Comparison
from lora_clf.data.cache import write_whole
from lora_clf.experiment.run import compare
from lora_clf.experiment.work import PlanProgress
from lora_clf.reports.table import cells_of, columns_of, footnotes, markdown_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison that the flags describe; the exit status."""
    flags = parsed(arguments)
    if refused := refusal(flags):
        print(refused, file=sys.stderr)
        return 2
    return script.run(flags, lambda folder: measure(flags, arguments or sys.argv[1:]))


def measure(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Compare as the flags, which came as ``words``, say; 1 where a run failed."""
    name = flags.out.stem
    work = flags.work or Path("runs") / "benchmarks" / name
    settings: dict[str, object] = {"protocol": flags.protocol}
    if flags.test_file:
        settings["test"] = flags.test_file
    training: dict[str, object] = {}
    if flags.quick:
        training["epochs"] = 1
    found = compare(
        BaseArguments(flags.base, device=flags.device),
        flags.data,
        "all" if is_all(flags.strategies) else chosen(flags.strategies),
        seeds=flags.repeats or flags.seeds,
        folds=flags.folds,
        resplit=flags.repeats is not None,
        curve=flags.curve,
        draws=2 if flags.quick else flags.draws,
        tune=flags.tune,
        jobs=flags.jobs,
        threads=flags.threads,
        out=work,
        force=flags.force,
        training=training,
        data_settings=settings,
        command=" ".join(["benchmarks/compare_strategies.py", *words]),
        progress=told,
    )
    if not found.failures:
        write_whole(flags.out, (work / "results.json").read_bytes())
    assert isinstance(found, Comparison), "SMS spam, TREC and the demo corpus have one label of several"
    columns = columns_of(found)
    print(markdown_table([c.heading for c in columns], cells_of(found), [c.left for c in columns]))
    print(*footnotes(found), "", found.verdict, sep="\n")
    written = f"Not written, because runs failed: {flags.out}" if found.failures else f"Written: {flags.out}"
    print(f"{written}; the report: {work / 'report.html'}")
    return 1 if found.failures else 0


def refusal(flags: argparse.Namespace) -> str | None:
    """Why these flags make no benchmark, in a line; None where they do."""
    if flags.folds is not None and flags.test_file:
        return "--folds makes every row a test row once and --test-file names other test rows; give one of them."
    if flags.quick and script.is_result(flags.out):
        return "--quick is not for figures: give an --out that is not below benchmarks/results."
    return None


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = script.parser(__doc__, "data", "base", "device", "quick")
    parser.add_argument("--test-file", help="a table of its own for the test part")
    parser.add_argument("--protocol", default="near-copy-free", help="near-copy-free, random or book")
    parser.add_argument("--folds", type=int, help="cut all rows into so many folds, each the test part once")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, help="so many splits, or cuts into folds, each with a seed of its own")
    parser.add_argument("--curve", help="examples of each class to learn from as well, as 16,32,64,all")
    parser.add_argument("--draws", type=int, default=10, help="subsets of each size of --curve up to 64")
    parser.add_argument("--tune", type=int, help="trials for each strategy, on folds inside the training part")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; seconds are then of a shared machine")
    parser.add_argument("--threads", type=int, help="of each run")
    parser.add_argument("--strategies", help="comma-separated, or all; the five by default")
    parser.add_argument("--force", action="store_true", help="overwrite the report of another comparison in --work")
    parser.add_argument("--work", type=Path, help="where runs are kept; runs/benchmarks/NAME by default")
    parser.add_argument("--out", type=Path, required=True, help="the result, as benchmarks/results/NAME.json")
    return parser.parse_args(arguments)


def told(now: PlanProgress) -> None:
    """One line on stderr for each event that people want to know of."""
    if now.event == "step":
        return
    left = "" if now.seconds_left is None else f", about {now.seconds_left:,.0f} s left"
    words = now.message or f"{now.cell} {now.event}"
    print(f"[{now.done}/{now.total}] {words}{left}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
