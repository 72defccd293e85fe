"""What a comparison is going to do, written down before it starts: one base, one data set, strategies, seeds.

A `Plan` is data: it goes through JSON unchanged. Its `Cell` objects are the units of work, one strategy with
one seed (and one fold, where the rows are cut into folds) each, run in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset
    from lora_clf.tuners.base import Tuner

SCHEMA = 1  # of everything a comparison writes
STRATEGIES = ("head-only", "last-block", "full", "lora", "lora-scratch")
_FILES = ("validation", "test")  # settings that may be paths; the data's digest stands for what is in them
_FOLD_SETTINGS = ("group_column", "validation", "positive_label")


def canonical(value: object) -> str:
    """``value`` as JSON in its one canonical form: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Contender:
    """A strategy with its settings, under the name it has in the tables.

    Attributes:
        label: unique in a plan; the strategy's name unless it takes part twice.
        strategy: the command-line name.
        settings: the strategy's hyperparameters, all of them.
    """

    label: str
    strategy: str
    settings: dict[str, Any] = field(default_factory=dict)

    def tuner(self) -> Tuner:
        """The strategy itself."""
        from lora_clf.tuners import create

        return create(self.strategy, **self.settings)


@dataclass(frozen=True)
class BaseArguments:
    """The arguments of `load_base`."""

    name: str = "minilm"
    revision: str | None = None
    device: str = "auto"
    pooling: str | None = None
    max_length: int | None = None

    def load(self) -> Base:
        """Load the base."""
        from lora_clf.base.base import load_base

        return load_base(
            self.name,
            revision=self.revision,
            device=self.device,
            pooling=self.pooling,
            max_length=self.max_length,
        )


@dataclass(frozen=True)
class DataArguments:
    """The arguments of `load_data`, or of `load_table` and `folds`.

    Attributes:
        source: a corpus' name or a file.
        settings: keyword arguments of `load_data`; with folds those of `load_table` and `folds`, and
            ``protocol``.
        folds: None for one split; k for k folds over all rows, each of them the test part once.
    """

    source: str = "sms-spam"
    settings: dict[str, Any] = field(default_factory=dict)
    folds: int | None = None

    def load(self, seed: int, fold: int | None = None) -> Dataset:
        """The data set of one split seed and, in a plan with folds, of one fold (0-based)."""
        return self.load_all(seed)[fold or 0]

    def load_all(self, seed: int) -> list[Dataset]:
        """Every data set of one split seed: one, or one a fold."""
        from lora_clf.data.dataset import folds, load_data

        if self.folds is None:
            return [load_data(self.source, **self.settings, seed=seed)]
        from lora_clf.data.corpus import load_corpus

        cut = {key: value for key, value in self.settings.items() if key in _FOLD_SETTINGS}
        read = {key: value for key, value in self.settings.items() if key not in {*_FOLD_SETTINGS, "protocol"}}
        if (group_column := cut.get("group_column")) is not None:
            read["columns"] = [*read.get("columns", ()), group_column]
        corpus = load_corpus(self.source, **read)
        return folds(
            corpus.part,
            self.folds,
            seed,
            self.settings.get("protocol", "near-copy-free"),
            **cut,
            name=corpus.name,
            licence=corpus.licence,
            source=corpus.source,
        )


@dataclass(frozen=True)
class Cell:
    """One unit of work: what a child process needs to know, and nothing that it may decide.

    Attributes:
        contender: the strategy.
        seed: of the training run: the head, the factors, the order of the rows.
        split_seed: of the split.
        fold: which fold is the test part (0-based), None where there are no folds.
        training: keyword arguments of `TrainSettings`, the seed aside.
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
    base_digest: str = ""
    tokenizer_digest: str = ""
    data_digest: str = ""
    environment_digest: str = ""

    @property
    def name(self) -> str:
        """The cell's folder: the contender, the seed and the fold."""
        parts = [_file_name(self.contender.label), f"seed-{self.seed}"]
        return "-".join(parts if self.fold is None else [*parts, f"fold-{self.fold}"])

    @property
    def digest(self) -> str:
        """What makes this cell's result this cell's: equal digests, equal results.

        Digests of base and data stand for where they were found, so a moved file is the same file. The settings
        of the data count too: the label to find, for one, is no part of the data's digest.
        """
        from lora_clf import __version__

        value = asdict(self)
        value["base"] = {key: value["base"][key] for key in ("device", "pooling", "max_length")}
        given = {key: part for key, part in value["data"]["settings"].items() if part is not None}
        value["data"] = {key: part for key, part in given.items() if key not in _FILES}
        del value["contender"]["label"]
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
    """

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    base: BaseArguments = field(default_factory=BaseArguments)
    data: DataArguments = field(default_factory=DataArguments)
    training: dict[str, Any] = field(default_factory=dict)
    resplit: bool = False
    split_seed: int = 0

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
            )
            for seed in self.seeds
            for fold in ((None,) if self.data.folds is None else range(self.data.folds))
            for contender in self.contenders
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "contenders": [asdict(c) for c in self.contenders], "seeds": list(self.seeds)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that ``value`` came from."""
        return cls(
            **{
                **value,
                "contenders": tuple(Contender(**part) for part in value["contenders"]),
                "seeds": tuple(value["seeds"]),
                "base": BaseArguments(**value["base"]),
                "data": DataArguments(**value["data"]),
            }
        )


def contenders_of(
    strategies: Sequence[str | Tuner] | None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Contender, ...]:
    """The contenders for strategies given by name or as objects; the five of the first table by default.

    Args:
        strategies: names or tuners. A tuner that differs from its defaults is labelled with what differs,
            when its strategy takes part more than once.
        settings: for each strategy name the hyperparameters that are not the default.

    Raises:
        UsageError: an unknown strategy or a setting that it does not have.
    """
    from lora_clf.tuners import create

    given = settings or {}
    tuners = [
        create(item, **given.get(item, {})) if isinstance(item, str) else item
        for item in (STRATEGIES if strategies is None else strategies)
    ]
    unused = sorted(set(given) - {tuner.name for tuner in tuners})
    if unused:
        raise UsageError(
            f"There are settings for {', '.join(unused)}, which this comparison does not hold. "
            f"It holds: {', '.join(tuner.name for tuner in tuners)}."
        )
    often = Counter(tuner.name for tuner in tuners)
    return tuple(
        Contender(tuner.name if often[tuner.name] == 1 else _variant(tuner), tuner.name, tuner.settings())
        for tuner in tuners
    )


def with_digests(cell: Cell, base: Base, data: Dataset, environment: str) -> Cell:
    """``cell`` with the digests that its child process must arrive at, and that of the ``environment``."""
    return replace(
        cell,
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer_digest,
        data_digest=data.digest,
        environment_digest=environment,
    )


def _variant(tuner: Tuner) -> str:
    usual = tuner.flags()
    changed = [f"{name}={value}" for name, value in tuner.settings().items() if value != usual[name]]
    return f"{tuner.name} ({', '.join(changed)})" if changed else tuner.name


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_.=" else "_" for letter in label)
