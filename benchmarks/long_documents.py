"""Does a classifier find what stands beyond its first window? Truncating against chunks and networks over chunks.

    python benchmarks/long_documents.py --trec-train runs/trec-train.csv --trec-test runs/trec-test.csv
    python benchmarks/long_documents.py --trec-train ... --trec-test ... --sets      # truncating alone, further sets
    python benchmarks/long_documents.py --table

Documents of 2,000 to 20,000 tokens are made here and kept nowhere: sentences of minutes of a meeting, drawn from some
thousand that say nothing of the class, and in them one passage of real TREC questions of one class (people, places or
numbers). It begins behind the first window of the base, at a place drawn evenly from there to the end. Questions are
split first: near copies stay on one side, documents of a part hold questions of that part alone. The base is frozen,
so what differs is how the document is read and what joins its chunks. The learning rate of the networks is the best of
`RATES` on validation, for each network. Whoever truncates can only guess, which 72 documents show badly: those of more
sets, drawn anew from other questions, are truncated, too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import script
from paired import RESULTS, provenance, read_json, write_json

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.corpus import Part
    from lora_clf.data.dataset import Dataset

OUT = RESULTS / "long_documents.json"
CLASSES = ("HUM", "LOC", "NUM")
SIZES = {"train": 144, "validation": 36, "test": 72}
SHORTEST, LONGEST = 2_000, 20_000  # tokens
QUESTIONS = 12  # in the passage: 150 tokens or so
RATES = (2e-3,)
EPOCHS = 60
SEED = 0
SETS = 8  # of documents, that are truncated

WHO = ("committee", "office", "team", "group", "board", "department", "panel", "section", "unit", "workshop", "council")
DID = (
    "reviewed",
    "postponed",
    "approved",
    "discussed",
    "noted",
    "accepted",
    "circulated",
    "closed",
    "filed",
    "revised",
)
WHAT = ("draft", "agenda", "report", "budget line", "summary", "proposal", "schedule", "procedure", "memo", "template")
HOW = ("without changes", "after a short exchange", "as planned", "with minor remarks", "in general terms", "once more",
       "with thanks", "subject to comments", "for the record", "in the usual form")  # fmt: skip


def sentence(random: np.random.Generator) -> str:
    """One sentence of the minutes."""
    who, did, what, how = (words[random.integers(len(words))] for words in (WHO, DID, WHAT, HOW))
    return f"The {who} {did} the {what} {how}."


def pools(train: Part, test: Part, seed: int) -> dict[str, dict[str, list[str]]]:
    """The questions of each part and class; near copies are in one part: those of the test file in test."""
    from lora_clf.data.near_copies import components

    texts = (*train.texts, *test.texts)
    labels = (*train.labels, *test.labels)
    groups = components(texts)
    tested = set(groups[len(train.texts) :].tolist())
    random = np.random.default_rng(seed)
    held_out = {group for group in sorted(set(groups.tolist()) - tested) if random.random() < 0.25}
    found: dict[str, dict[str, list[str]]] = {part: {label: [] for label in CLASSES} for part in SIZES}
    for place, (text, label, group) in enumerate(zip(texts, labels, groups.tolist(), strict=True)):
        if label not in CLASSES:
            continue
        if place >= len(train.texts):
            found["test"][label].append(text)
        elif group not in tested:
            found["validation" if group in held_out else "train"][label].append(text)
    return found


def document(base: Base, questions: Sequence[str], random: np.random.Generator) -> str:
    """One document with a passage of some of the questions behind the base's first window."""
    wanted = int(np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))
    chosen = random.choice(len(questions), min(QUESTIONS, len(questions)), replace=False)
    passage = " ".join(questions[place] for place in chosen)
    sentences = [sentence(random) for _ in range(wanted // 8)]
    counts = np.cumsum(base.tokenizer.count([f" {each}" for each in sentences]))
    last = int(np.searchsorted(counts, wanted))
    first = int(np.searchsorted(counts, base.max_length)) + 1
    place = int(random.integers(first, max(last - 5, first + 1)))
    return " ".join([*sentences[:place], passage, *sentences[place:last]])


def documents(base: Base, train: Part, test: Part, seed: int) -> Dataset:
    """All documents, classes even in each part."""
    from lora_clf.data.corpus import Part
    from lora_clf.data.dataset import Dataset

    questions = pools(train, test, seed)
    parts, digest, row = {}, hashlib.sha256(), 1
    for number, (name, size) in enumerate(SIZES.items()):
        random = np.random.default_rng((seed, number))
        labels = tuple(CLASSES[place % len(CLASSES)] for place in range(size))
        texts = tuple(document(base, questions[name][label], random) for label in labels)
        digest.update("\0".join(texts).encode())
        parts[name] = Part(texts, labels, tuple(range(row, row + size)), {})
        row += size
    return Dataset(
        "long documents",
        parts["train"],
        parts["validation"],
        parts["test"],
        CLASSES,
        None,
        "given",
        digest.hexdigest(),
        None,
        "made of TREC questions",
    )


def measured(base: Base, data: Dataset) -> dict[str, Any]:
    """Accuracy on test, and what was read, for each way to read the documents."""
    from lora_clf.base.reading import PLAIN, Reading
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    found: dict[str, Any] = {}
    truth = data.label_ids(data.test)

    def note(name: str, right: Any, **more: Any) -> None:
        found[name] = {"right": int(right.sum()), "n": len(right), **more}
        print(f"{name}: {int(right.sum())} of {len(right)}", flush=True)

    def run(reading: Reading, settings: TrainSettings) -> Any:
        started = time.perf_counter()
        result = train(base, data, create("head-only"), settings, reading=reading)
        print(f"  trained in {time.perf_counter() - started:.0f} s", flush=True)
        return result

    result = run(PLAIN, TrainSettings(seed=SEED, precision="fp32"))
    note("truncate", result.test_logits.argmax(1) == truth, usage=result.usage["test"].as_dict(), rate=None)

    for aggregate in ("mean", "max", "vote", "score"):
        result = run(Reading("chunk", aggregate=aggregate), TrainSettings(seed=SEED, precision="fp32"))
        right = result.test_logits.argmax(1) == truth
        note(f"chunk, {aggregate}", right, usage=result.usage["test"].as_dict(), rate=None)

    for network in ("attention", "mlp", "bilstm"):
        tried = {}
        for rate in RATES:
            tried[rate] = run(
                Reading("hierarchical", combine=network),
                TrainSettings(seed=SEED, lr=rate, epochs=EPOCHS, precision="fp32"),
            )
        rate = min(RATES, key=lambda one: tried[one].validation["loss"])
        result = tried[rate]
        right = result.test_logits.argmax(1) == truth
        note(f"hierarchical, {network}", right, usage=result.usage["test"].as_dict(), rate=rate)
    return found


def truncated(base: Base, train: Part, test: Part) -> dict[str, Any]:
    """Who truncates, over several sets of documents, as an entry of the table."""
    from lora_clf.training.loop import train as trained
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    right = total = read = tokens = dropped = 0
    for seed in range(SETS):
        data = documents(base, train, test, seed)
        result = trained(base, data, create("head-only"), TrainSettings(seed=SEED, precision="fp32"))
        right += int((result.test_logits.argmax(1) == data.label_ids(data.test)).sum())
        usage = result.usage["test"].as_dict()
        total, read = total + len(data.test), read + usage["read"]
        tokens, dropped = tokens + usage["tokens"], dropped + usage["dropped"]
        print(f"truncate, set {seed + 1} of {SETS}: {right} of {total}", flush=True)
    return {
        "right": right,
        "n": total,
        "usage": {"read": read, "tokens": tokens, "dropped": dropped},
        "rate": None,
    }


def table(value: dict[str, Any]) -> str:
    """The result as a table with 95 % intervals (Wilson), and how it was made."""
    from lora_clf.evaluation.intervals import wilson
    from lora_clf.reports.table import markdown_table

    rows = []
    for name, each in value["policies"].items():
        interval = wilson(each["right"], each["n"])
        used = each["usage"]
        share = used["read"] / used["tokens"]
        rate = "solved" if each["rate"] is None else f"{each['rate']:g}"
        rows.append(
            [name, f"{each['right']} of {each['n']}", f"{100 * each['right'] / each['n']:.0f}",
             f"{100 * interval.low:.0f} to {100 * interval.high:.0f}", f"{used['read']:,}", f"{used['dropped']:,}",
             f"{100 * share:.0f}", rate]
        )  # fmt: skip
    heads = ["policy", "right", "%", "95 % interval", "tokens read", "dropped", "read %", "learning rate"]
    made = value["data"]
    sizes = ", ".join(f"{count} {part}" for part, count in made["sizes"].items())
    return (
        markdown_table(heads, rows, [True] + [False] * (len(heads) - 1))
        + f"\nThree classes, so chance is 33 %. {sizes} documents of {made['shortest']:,} to {made['longest']:,} "
        f"tokens, digest {made['digest'][:12]}; base {value['base']}, frozen, seed {value['seed']}.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table."""
    parser = script.parser(__doc__, "base", "table", out=OUT)
    parser.add_argument("--trec-train", type=Path)
    parser.add_argument("--trec-test", type=Path)
    parser.add_argument("--sets", action="store_true", help="add the row of truncating further sets to the result")
    flags = parser.parse_args(arguments)
    if not flags.table and (flags.trec_train is None or flags.trec_test is None):
        parser.error("give --trec-train and --trec-test, which benchmarks/trec_table.py writes")
    return script.run(flags, lambda folder: measure(flags), table)


def measure(flags: argparse.Namespace) -> None:
    """Measure every policy, or the further sets alone; write the result and print it."""
    from lora_clf.base.base import load_base
    from lora_clf.data.dataset import load_table

    base = load_base(flags.base)
    tables = load_table(flags.trec_train), load_table(flags.trec_test)
    name = f"truncate, {SETS} sets of documents"
    if flags.sets:
        value = read_json(flags.out)
        value["policies"][name] = truncated(base, *tables)
        write_json(flags.out, value)
        print(table(value))
        return
    data = documents(base, *tables, SEED)
    lengths = [count for part in data.parts.values() for count in base.tokenizer.count(part.texts)]
    policies = {**measured(base, data), name: truncated(base, *tables)}
    value = {
        "policies": policies,
        "data": {
            "sizes": SIZES,
            "shortest": min(lengths),
            "longest": max(lengths),
            "classes": CLASSES,
            "questions": QUESTIONS,
            "digest": data.digest,
        },
        "base": base.name,
        "base_digest": base.digest,
        "seed": SEED,
        "rates": RATES,
        "epochs": EPOCHS,
        "facts": provenance(base.device),
    }
    write_json(flags.out, value)
    print(table(value))


if __name__ == "__main__":
    sys.exit(main())
