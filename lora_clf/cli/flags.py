"""Flags that several commands share, as groups; `takes` spreads a group into the signature that typer reads.

A group is a frozen dataclass whose fields are ``Annotated[type, typer.Option(...)]``. A command function asks
for a group by annotating a parameter with it::

    @app.command()
    @takes
    def train(base: BaseFlags, data: DataFlags, tuning: StrategyFlags) -> None: ...

The flags of the strategies and of the training loop are not written here: `StrategyFlags` and `TrainFlags`
find them in the dataclass fields of the tuners and of `TrainSettings`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, get_type_hints

import typer

from lora_clf.cli.output import note
from lora_clf.comparison.arguments import LABELS
from lora_clf.errors import UsageError


class Flags:
    """A group of flags: knows its typer parameters and how to gather their values."""

    panel: ClassVar[str] = "Options"

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """One keyword-only parameter a flag, under this group's panel of the help."""
        hints = get_type_hints(cls, include_extras=True)
        found = []
        for field in fields(cls):  # type: ignore[arg-type]  # every group but StrategyFlags is a dataclass
            kind, info = hints[field.name].__origin__, copy.copy(hints[field.name].__metadata__[0])
            if info.rich_help_panel is None and isinstance(info, type(typer.Option())):
                info.rich_help_panel = cls.panel
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            found.append(_parameter(field.name, Annotated[kind, info], default))
        return found

    @classmethod
    def gather(cls, values: Mapping[str, Any]) -> Flags:
        """The group from its flags' values."""
        return cls(**values)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def takes(function: Callable[..., None]) -> Callable[..., None]:
    """The function with each group among its parameters spread into that group's flags."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, tuple[type[Flags], list[str]]] = {}
    spread: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, Flags):
            parameters = kind.parameters()
            groups[name] = (kind, [each.name for each in parameters])
            spread += parameters
        else:
            spread.append(_parameter(name, kind, parameter.default))

    def command(**values: Any) -> None:
        for name, (kind, names) in groups.items():
            values[name] = kind.gather({each: values.pop(each) for each in names})
        function(**values)

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return command


OwnBase = Annotated[str | None, typer.Option(help="The base; by default the adapter's own, found by digest.")]
Revision = Annotated[str | None, typer.Option(help="A Hub revision, where --base is a Hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
FileCap = Annotated[float, typer.Option(help="The largest adapter that is read, in GiB.")]


@dataclass(frozen=True)
class BaseFlags(Flags):
    """Which base, and where it runs."""

    panel: ClassVar[str] = "Base"

    base: Annotated[
        str, typer.Option(help="minilm, gpt2, gpt2-medium, gpt2-large, gpt2-xl, a folder, or a Hub id.")
    ] = "minilm"
    revision: Revision = None
    device: Device = "auto"
    pooling: Annotated[str | None, typer.Option(help="mean, first, last or family; by default the base's own.")] = None
    max_length: Annotated[int | None, typer.Option(help="Tokens kept of a text; by default the base's own.")] = None


@dataclass(frozen=True)
class AdapterFlags(Flags):
    """How a saved adapter is opened: on which base, and what is checked."""

    panel: ClassVar[str] = "Adapter"

    base: OwnBase = None
    revision: Revision = None
    device: Device = "auto"
    base_check: Annotated[
        str, typer.Option(help="Another base of the same shape: strict refuses it, warn says so, off is silent.")
    ] = "strict"
    no_verify: Annotated[
        bool,
        typer.Option(
            "--no-verify",
            help="Do not compute the canaries again, seven fixed texts whose logits are in the adapter; they cost "
            'what labelling seven texts costs (in ms: benchmarks/README.md, "What do the canaries cost?").',
        ),
    ] = False
    file_cap: FileCap = 2.0

    @property
    def cap(self) -> int:
        """The largest file that is read, in bytes.

        Raises:
            UsageError: ``file_cap`` is no positive number.
        """
        if not 0 < self.file_cap < 2**20:  # nan too
            raise UsageError(f"--file-cap {self.file_cap:g}: expected a number of GiB above 0.")
        return int(self.file_cap * 2**30)


@dataclass(frozen=True)
class DataFlags(Flags):
    """Which columns, and how the table is split."""

    panel: ClassVar[str] = "Data"

    text_column: Annotated[str | None, typer.Option(help="The column of texts.")] = None
    label_column: Annotated[str | None, typer.Option(help="The column of labels.")] = None
    group_column: Annotated[str | None, typer.Option(help="A column whose groups stay on one side of the split.")] = (
        None
    )
    split_column: Annotated[str | None, typer.Option(help="A column that says train, validation or test.")] = None
    validation_file: Annotated[str | None, typer.Option(help="Your own validation table.")] = None
    test_file: Annotated[str | None, typer.Option(help="Your own test table.")] = None
    split: Annotated[str, typer.Option(help="Train/validation/test, in this proportion.")] = "70/10/20"
    protocol: Annotated[str, typer.Option(help="How rows are split: near-copy-free, random or book.")] = (
        "near-copy-free"
    )
    balance: Annotated[
        str, typer.Option(help="natural; undersample, or undersample-train (test stays natural), to the rarest class.")
    ] = "natural"
    positive_label: Annotated[str | None, typer.Option(help="Of two labels the one to find; by default the rarer.")] = (
        None
    )
    encoding: Annotated[str | None, typer.Option(help="Of a text file that is not UTF-8, as cp1252.")] = None
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows without text or label, and name them.")
    ] = False
    task: Annotated[
        str,
        typer.Option(help="auto (found out, with the reason), binary, multiclass, multilabel, regression or ordinal."),
    ] = "auto"
    label_separator: Annotated[
        str | None, typer.Option(help="What stands between several labels of a row: multilabel; '|' if not given.")
    ] = None
    label_order: Annotated[
        str | None, typer.Option(help="Classes from the lowest to the highest, as bad,fair,good: ordinal.")
    ] = None
    bins: Annotated[
        str | None,
        typer.Option(help="Cut a number into classes: low:2,medium:4,high (up to 2, up to 4, above), or how many."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of `load_data`, the seed aside."""
        usual = type(self)()
        values = {
            name: value for name, value in asdict(self).items() if name not in LABELS or value != getattr(usual, name)
        }
        values["validation"], values["test"] = values.pop("validation_file"), values.pop("test_file")
        return values

    def table_settings(self, beside: tuple[str, ...] = ()) -> dict[str, Any]:
        """The keyword arguments of `load_table`: how a table is read, not how it is split.

        Raises:
            UsageError: a flag about splitting came too, other than those in ``beside``.
        """
        names = ("text_column", "label_column", "encoding", "skip_bad_rows")
        defaults = type(self)()
        other = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if field.name not in (*names, *beside, *LABELS, "positive_label")
            and getattr(self, field.name) != getattr(defaults, field.name)
        ]
        if other:
            raise UsageError(f"Where no split into parts is made, {', '.join(other)} does not apply.")
        return {name: getattr(self, name) for name in names}

    def task_flags(self) -> list[str]:
        """The flags that came and say what is learned, as words of a command."""
        defaults = type(self)()
        given = {name: value for name in LABELS if (value := getattr(self, name)) != getattr(defaults, name)}
        return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]

    def say_unused(self, task: str) -> None:
        """Say of flags about what is learned that an adapter, whose ``task`` is this, knows it already."""
        if flags := self.task_flags()[::2]:
            note(f"The adapter's own task ({task}) counts; {', '.join(flags)} has no effect.")


CacheSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Disk that frozen states may take, for later runs on the same texts; 0 keeps none "
        "(default: $LORA_CLF_CACHE_SIZE, or 4GB)",
        rich_help_panel="Training",
        show_default=False,
    ),
]


class TrainFlags(dict[str, Any], Flags):
    """The settings of the loop that were given; the flags come from the fields of `TrainSettings`."""

    panel = "Training"
    ELSEWHERE: ClassVar[tuple[str, ...]] = ("seed", "max_length")  # flags of their own

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """One flag a field."""
        from lora_clf.training.settings import TrainSettings

        hints = get_type_hints(TrainSettings)
        found = []
        for field in fields(TrainSettings):
            if field.name not in cls.ELSEWHERE:
                text = _description(TrainSettings, field.name)
                text += "" if field.default is None else f" (default: {field.default})"
                option = typer.Option(help=text, rich_help_panel=cls.panel, show_default=False)
                kind = _plain(hints[field.name])
                found.append(_parameter(field.name, Annotated[kind | None, option], None))
        return [*found, _parameter("cache_size", CacheSize, None)]

    @classmethod
    def gather(cls, values: Mapping[str, Any]) -> TrainFlags:
        """Those that were given; ``--cache-size`` is about this machine, not the run, so it is set for the process.

        Raises:
            UsageError: ``--cache-size``, or the variable where it did not come, is no size.
        """
        from lora_clf.inference.state_folder import disk_budget, set_disk_budget

        given = {name: value for name, value in values.items() if value is not None}
        if (size := given.pop("cache_size", None)) is not None:
            set_disk_budget(size)
        disk_budget()  # a variable that holds no size ends here, not in the middle of a comparison
        return cls(given)


Seed = Annotated[int, typer.Option(help="What every random number is drawn from.")]
Precision = Annotated[str, typer.Option(help="fp32 (exact), bf16, auto: bf16 where the device has it; fp16 on CUDA.")]
AdapterDtype = Annotated[str, typer.Option(help="What adapters are saved in: fp32, or bf16, half as large.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class StrategyFlags(dict[str, Any], Flags):
    """The strategies' hyperparameters that were given, by name; the flags come from the tuners' fields."""

    panel = "Strategy"

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """One flag a field name; its help says which strategies have it, and their defaults."""
        found = []
        for name, owners in _owners().items():
            kinds = {_plain(get_type_hints(tuner)[name]) for tuner in owners.values()}
            kind: type = kinds.pop() if len(kinds) == 1 else float if kinds == {int, float} else str
            defaults: dict[str, list[str]] = {}
            for strategy, tuner in owners.items():
                defaults.setdefault(_shown(tuner.flags()[name]), []).append(strategy)
            of = "; ".join(f"{', '.join(names)}: {default}" for default, names in defaults.items())
            text = f"{_description(next(iter(owners.values())), name)} ({of})"
            option = typer.Option(help=text, rich_help_panel=cls.panel, show_default=False)
            found.append(_parameter(name, Annotated[kind | None, option], None))
        return found

    @classmethod
    def gather(cls, values: Mapping[str, Any]) -> StrategyFlags:
        """Those that were given."""
        return cls({name: value for name, value in values.items() if value is not None})

    def create(self, strategy: str) -> Any:
        """The tuner called ``strategy`` with these settings.

        Raises:
            UsageError: no such strategy, or a flag that it does not have; the message lists those it has.
        """
        from lora_clf import tuners

        return tuners.create(strategy, **{**self, **self._of(strategy)})

    def each(self, strategies: Sequence[str]) -> dict[str, dict[str, Any]]:
        """For each of several strategies those of the settings that it has; only strategies that have one.

        Raises:
            UsageError: none of them has a flag that was given.
        """
        for name in self:
            owners = _owners()[name]
            if not owners.keys() & set(strategies):
                raise UsageError(
                    f"--{name.replace('_', '-')} applies to none of {', '.join(strategies)}; "
                    f"it is a flag of {', '.join(owners)}."
                )
        return {strategy: own for strategy in strategies if (own := self._of(strategy))}

    def _of(self, strategy: str) -> dict[str, Any]:
        owners = _owners()
        return {
            name: _as(_plain(get_type_hints(owners[name][strategy])[name]), name, value)
            for name, value in self.items()
            if strategy in owners[name]
        }


def _owners() -> dict[str, dict[str, Any]]:
    """Which strategies have each field: field name -> strategy name -> tuner class."""
    from lora_clf.tuners import strategies

    found: dict[str, dict[str, Any]] = {}
    for strategy, tuner in strategies().items():
        for name in tuner.flags():
            found.setdefault(name, {})[strategy] = tuner
    return found


def _plain(hint: Any) -> type:
    """The type that a flag is parsed as: ``int | None`` is int, what is no plain type is text."""
    kinds = [kind for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float, str) else str


def _as(kind: type, name: str, value: Any) -> Any:
    """``value`` as the chosen strategy's own type, where strategies differ in the type of a field."""
    try:
        converted = kind(value)
    except ValueError:
        converted = None
    if converted is None or (kind is int and converted != float(value)):
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected {kind.__name__}.")
    return converted


def _shown(default: Any) -> str:
    return "all" if default is None else str(default) or "none"


def _description(tuner: type, name: str) -> str:
    """What the class docstring's "Attributes" says about a field."""
    for kind in tuner.__mro__:
        lines = inspect.cleandoc(kind.__doc__ or "").splitlines()
        for number, line in enumerate(lines):
            if line.startswith(f"    {name}: "):
                more = []
                for following in lines[number + 1 :]:
                    if not following.startswith("     "):
                        break
                    more.append(following.strip())
                text = " ".join([line.split(": ", 1)[1], *more]).rstrip(".")
                plain = text.split(" ", 1)[0].isalpha()  # not a value, as in "all, attention ..."
                return text[:1].upper() + text[1:] if plain else text
    return name.replace("_", " ").capitalize()
