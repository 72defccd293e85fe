"""What a comparison is going to do, written down before it starts: one base, one data set, strategies, seeds.

A `Plan` is data: it goes through JSON unchanged. Its `Cell` objects are the units of work, one strategy with
one seed (and one fold, where the rows are cut into folds) each, run in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.contender import Contender
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

Datasets = dict[tuple[int, int | None], "Dataset"]  # by split seed and fold, or by draw and k
SCHEMA = 1  # of everything a comparison writes
FEW = 64  # up to so many examples a class a learning curve takes all its draws; of more the draws differ less
FEWEST = 3
LEAST_STEPS = 100  # of the optimizer on a learning curve: three epochs of 24 texts would train nothing
_FILES = ("validation", "test")  # settings that may be paths; the data's digest stands for what is in them


def canonical(value: object) -> str:
    """``value`` as JSON in its one canonical form: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Curve:
    """The points of a learning curve: each strategy with k examples of each class, several draws of them.

    Attributes:
        sizes: the k, ascending.
        draws: how many subsets of each size up to 64 are drawn, and of larger ones fewer, as they differ less.
        whole: whether the whole training part is a point too.
    """

    sizes: tuple[int, ...]
    draws: int = 10
    whole: bool = True

    def __post_init__(self) -> None:
        """Check the sizes; all problems at once."""
        problems = [f"{k} of each class: expected 2 at least" for k in self.sizes if k < 2]
        if not self.sizes:
            problems.append("no number of examples; expected some, as --curve 16,32,64,all")
        if list(self.sizes) != sorted(set(self.sizes)):
            problems.append(f"sizes {', '.join(map(str, self.sizes))}: expected ascending, each once")
        if self.draws < 1:
            problems.append(f"--draws {self.draws}: expected at least 1")
        if problems:
            raise UsageError(f"This learning curve cannot be drawn: {'; '.join(problems)}.")

    def draws_of(self, k: int) -> int:
        """How many subsets of ``k`` a class are drawn: all up to 64, of more as 64 is to k, at least 3."""
        return self.draws if k <= FEW else min(self.draws, max(FEWEST, math.ceil(self.draws * FEW / k)))

    @staticmethod
    def epochs(rows: int, training: Mapping[str, Any]) -> int:
        """Epochs over ``rows`` texts: those that ``training`` names; else the usual, but enough for 100 steps."""
        from lora_clf.training.settings import TrainSettings

        settings = TrainSettings(**training)
        steps = math.ceil(math.ceil(rows / settings.batch_size) / settings.accumulate)
        return settings.epochs if "epochs" in training else max(settings.epochs, math.ceil(LEAST_STEPS / steps))


@dataclass(frozen=True)
class Cell:
    """One unit of work: what a child process needs to know, and nothing that it may decide.

    Attributes:
        contender: the strategy.
        seed: of the training run: the head, the factors, the order of the rows. On a learning curve the number of
            the draw too.
        split_seed: of the split.
        fold: which fold is the test part (0-based), None where there are no folds.
        training: keyword arguments of `TrainSettings`, the seed aside.
        reading: the settings of `lora_clf.base.reading.Reading`; none where long texts are cut off.
        k: examples of each class, on a learning curve; None for the whole training part.
        base_digest: the base that must be found.
        tokenizer_digest: its tokenizer.
        data_digest: the data set that must be arrived at.
        environment_digest: versions, code, device, precision and threads that the parent found.
    """

    contender: Contender
    seed: int
    split_seed: int
    fold: int | None
    base: BaseArguments
    data: DataArguments
    training: dict[str, Any]
    k: int | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    base_digest: str = ""
    tokenizer_digest: str = ""
    data_digest: str = ""
    environment_digest: str = ""

    @property
    def name(self) -> str:
        """The cell's folder: the contender, the seed and the fold, or the size and the draw."""
        if self.k is not None:
            return f"{file_name(self.contender.label)}-k-{self.k}-draw-{self.seed}"
        parts = [file_name(self.contender.label), f"seed-{self.seed}"]
        return "-".join(parts if self.fold is None else [*parts, f"fold-{self.fold}"])

    @property
    def price(self) -> str:
        """Cells of one price take about as long as each other."""
        return price_of(self.contender.label, self.k)

    @property
    def digest(self) -> str:
        """What makes this cell's result this cell's: equal digests, equal results.

        Digests of base and data stand for where they were found, so a moved file is the same file. The settings
        of the data count too: the label to find, for one, is no part of the data's digest.
        """
        from lora_clf import __version__

        value = asdict(self)
        value["base"] = {key: part for key, part in self.base.to_json().items() if key not in ("name", "revision")}
        given = {key: part for key, part in value["data"]["settings"].items() if part is not None}
        value["data"] = {key: part for key, part in given.items() if key not in _FILES}
        del value["contender"]["label"]
        if self.k is None:
            del value["k"]
        if not self.reading:
            del value["reading"]
        return digest_of({"schema": SCHEMA, "version": __version__, **value})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """The cell that ``value`` came from."""
        kinds = {"contender": Contender, "base": BaseArguments, "data": DataArguments}
        return cls(**{key: kinds[key](**part) if key in kinds else part for key, part in value.items()})


@dataclass(frozen=True)
class Plan:
    """One base, one data set, the strategies and the seeds of a comparison.

    Attributes:
        seeds: the training seeds; each strategy runs with all of them.
        resplit: whether the split varies with the seed too; otherwise all seeds share one split.
        split_seed: the seed of the split, where it does not vary.
        curve: the points of the learning curve, where one is asked for.
        reading: how long texts are read, for all strategies; empty: they are cut off.
        tune: how many trials each strategy gets to choose its hyperparameters; None takes the defaults.
        fixed: where they are chosen, for each strategy those that were set by hand, be it to their defaults.
    """

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    base: BaseArguments = field(default_factory=BaseArguments)
    data: DataArguments = field(default_factory=DataArguments)
    training: dict[str, Any] = field(default_factory=dict)
    resplit: bool = False
    split_seed: int = 0
    curve: Curve | None = None
    tune: int | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check everything that can be checked without loading anything; all problems at once."""
        problems = []
        if not self.contenders:
            problems.append("no strategy; expected at least one of --strategies")
        if not self.seeds:
            problems.append("no seed; expected --seeds 1 or more")
        for kind, values in (
            ("strategy", [contender.label for contender in self.contenders]),
            ("seed", [str(seed) for seed in self.seeds]),
        ):
            twice = sorted(value for value, count in Counter(values).items() if count > 1)
            if twice:
                problems.append(f"{kind} {', '.join(twice)} is named twice")
        if self.data.folds is not None and self.data.folds < 2:
            problems.append(f"--folds {self.data.folds}: expected at least 2")
        if self.curve is not None and (self.data.folds is not None or self.resplit):
            problems.append("--curve takes one split, whose test part is that of every point; not --folds or --resplit")
        if self.tune is not None and self.tune < 1:
            problems.append(f"--tune {self.tune}: expected at least 1 trial")
        if self.tune is not None and self.curve is not None:
            problems.append(
                "--tune and --curve together: a choice made on all training rows would know more than the k; curves "
                "take the fixed defaults"
            )
        if "seed" in self.training:
            problems.append("the training settings hold a seed; the seeds of a comparison are --seeds")
        if problems:
            raise UsageError(f"This comparison cannot be run: {'; '.join(problems)}.")
        for contender in self.contenders:
            contender.tuner()

    def split_seeds(self) -> tuple[int, ...]:
        """The different seeds that splits are made with."""
        return self.seeds if self.resplit else (self.split_seed,)

    def cells(self) -> list[Cell]:
        """All units of work, seed by seed, so that an interrupted plan has whole seeds."""
        return [
            Cell(
                contender=contender,
                seed=seed,
                split_seed=seed if self.resplit else self.split_seed,
                fold=fold,
                base=self.base,
                data=self.data,
                training=dict(self.training),
                reading=dict(self.reading),
            )
            for seed in self.seeds
            for fold in ((None,) if self.data.folds is None else range(self.data.folds))
            for contender in self.contenders
        ]

    def curve_cells(self) -> list[Cell]:
        """The units of work of the learning curve, the whole training part aside: strategy by strategy."""
        if self.curve is None:
            return []
        return [
            Cell(
                contender=contender,
                seed=draw,
                split_seed=self.split_seed,
                fold=None,
                base=self.base,
                data=self.data,
                training=dict(self.training),
                reading=dict(self.reading),
                k=k,
            )
            for contender in self.contenders
            for k in self.curve.sizes
            for draw in range(self.curve.draws_of(k))
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; of a curve and of tuning only where they are asked for."""
        value = {
            **asdict(self),
            "base": self.base.to_json(),
            "contenders": [asdict(c) for c in self.contenders],
            "seeds": list(self.seeds),
        }
        if self.curve is not None:
            value["curve"]["sizes"] = list(self.curve.sizes)
        return {key: part for key, part in value.items() if part or key not in ("curve", "tune", "reading", "fixed")}


def with_digests(cell: Cell, base: Base, data: Dataset, environment: str) -> Cell:
    """``cell`` with the digests that its child process must arrive at, and that of the ``environment``.

    On a learning curve also with the epochs that so few examples need.
    """
    longer = {} if cell.k is None else {"epochs": Curve.epochs(len(data.train), cell.training)}
    return replace(
        cell,
        training={**cell.training, **longer},
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer_digest,
        data_digest=data.digest,
        environment_digest=environment,
    )


def price_of(label: str, k: int | None = None) -> str:
    """What a run is called where only its price counts: the contender and the size of its training part."""
    return label if k is None else f"{label} k={k}"


def curve_of(asked: str | Sequence[int | str], draws: int = 10) -> Curve:
    """The learning curve of ``16,32,64,all``, in any order.

    Raises:
        UsageError: something is neither a number nor ``all``, or there is no number.
    """
    pieces = asked.split(",") if isinstance(asked, str) else asked
    words = [str(piece).strip().lower() for piece in pieces if str(piece).strip()]
    wrong = [word for word in words if word != "all" and not (word.isascii() and word.isdigit())]
    if wrong:
        raise UsageError(
            f"--curve {', '.join(wrong)}: expected examples of each class and perhaps all, as 16,32,64,all."
        )
    sizes = sorted({int(word) for word in words if word != "all"})
    return Curve(tuple(sizes), draws, "all" in words)


def file_name(label: str) -> str:
    """``label`` as part of a folder's name."""
    return "".join(letter if letter.isalnum() or letter in "-_.=" else "_" for letter in label)
