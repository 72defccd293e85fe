"""What PEFT's ``adapter_config.json`` may say so that we compute what PEFT computes.

It is an allow-list: every field of PEFT's ``LoraConfig`` stands in one of three tables, and what is neither read, nor
without effect, nor at the value that switches it off refuses the file by its name. So a variant that a later PEFT
invents is refused, not passed over. A test walks the fields of the installed PEFT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import regex  # type: ignore[import-untyped]

from lora_clf.errors import AdapterFormatError

READ: Final = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version", "r", "lora_alpha", "lora_dropout",
    "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save",
})  # fmt: skip
"""Fields that are read."""

IDLE: Final[Mapping[str, str]] = MappingProxyType({
    "auto_mapping": "which class it was trained in; the tensors' names tell",
    "inference_mode": "about training on",
    "fan_in_fan_out": "PEFT itself corrects it by the kind of the layer",
    "runtime_config": "about where things are computed; not saved",
})  # fmt: skip
"""Fields that change nothing of what a saved adapter computes, and why."""

OFF: Final[Mapping[str, Any]] = MappingProxyType({
    "bias": "none",
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "trainable_token_indices": None,
    "loftq_config": {},
    "eva_config": None,
    "corda_config": None,
    "lora_ga_config": None,
    "use_dora": False,
    "velora_config": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "qalora_group_size": 16,
    "monteclora_config": None,
    "layer_replication": None,
    "lora_bias": False,
    "target_parameters": None,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "ensure_weight_tying": False,
})  # fmt: skip
"""Fields that would change the computation or the base's weights, and the value that switches each off."""

# These draw the factors and leave the base's weights alone. The others (pissa, olora, corda, loftq, lora_ga, ...) take
# a part out of the base first, so that the factors mean nothing on the base itself.
INITIAL: Final = (True, False, "gaussian", "orthogonal")

ALL_LINEAR: Final = "all-linear"
"""PEFT's word, in place of an expression, for every linear layer."""

TASKS: Final = ("SEQ_CLS", None)
_PATIENCE: Final = 1.0  # seconds for one pattern on one name
_SHOWN: Final = 60


@dataclass(frozen=True)
class PeftFields:
    """What was read.

    Attributes:
        rank, alpha: of every layer that no pattern names.
        rank_pattern, alpha_pattern: by PEFT's expressions over layer names.
        rslora: whether the scaling is alpha / sqrt(rank) in place of alpha / rank.
        dropout: in training.
        targets, excluded: names or endings of layers that are adapted, and that are not; or an expression for them.
        layers: the blocks in which endings count, by number; None: in all.
        patterns: what may stand before that number; empty: anything.
        saved: endings of modules that were trained as they are, and should be in the file.
        base_name, revision: the base as PEFT calls it: a Hub id, or a path of another machine.
        version: of PEFT.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, Any] = field(default_factory=dict)
    alpha_pattern: Mapping[str, Any] = field(default_factory=dict)
    rslora: bool = False
    dropout: float = 0.0
    targets: tuple[str, ...] | str = ()
    excluded: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    patterns: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    base_name: str | None = None
    revision: str | None = None
    version: str | None = None

    def rank_of(self, layer: str) -> int:
        """The rank of a layer by its full name in PEFT's model."""
        return int(_matched(self.rank_pattern, layer, self.rank, "rank_pattern"))

    def scaling_of(self, layer: str) -> float:
        """What the change of a layer is multiplied by."""
        rank, alpha = self.rank_of(layer), float(_matched(self.alpha_pattern, layer, self.alpha, "alpha_pattern"))
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def selects(self, layer: str) -> bool:
        """Whether PEFT adapts the layer of that full name, where it is one that can be adapted."""
        if _named(self.excluded, layer, "exclude_modules"):
            return False
        if isinstance(self.targets, str):
            return self.targets.lower() == ALL_LINEAR or _named(self.targets, layer, "target_modules")
        if layer in self.targets:
            return True
        return _named(self.targets, layer, "target_modules") and (
            self.layers is None or _block(self.patterns, layer) in self.layers
        )


def read_fields(values: Mapping[str, Any]) -> PeftFields:
    """The fields of a PEFT config.

    Raises:
        AdapterFormatError: it is no LoRA for classification, or has fields that we cannot follow; all of them named.
    """
    if values.get("peft_type") != "LORA":
        raise AdapterFormatError(
            f"The PEFT adapter is of the type {_short(values.get('peft_type'))}; only LORA adapters can be brought in."
        )
    if values.get("task_type") not in TASKS:
        raise AdapterFormatError(
            f"The PEFT adapter was made for the task {_short(values['task_type'])}; only classifiers (SEQ_CLS) can be "
            "brought in: without a head there are no labels."
        )
    problems = [f"{name} is {_short(values[name])}" for name in sorted(values) if not _allowed(name, values[name])]
    if problems:
        raise AdapterFormatError(
            f"The PEFT adapter cannot be followed: {'; '.join(problems)}. Plain LoRA is supported, rsLoRA, "
            "rank_pattern and alpha_pattern too; train it again without these."
        )
    wrong = [f"{name} is {_short(values.get(name, usual))}, expected {expected}" for name, usual, expected, fits in (
        ("r", 8, "a whole number from 1 on", _count),
        ("lora_alpha", 8, "a number above 0", _positive),
        ("lora_dropout", 0.0, "a number from 0 up to 1", lambda v: _number(v) and 0 <= v < 1),
        ("use_rslora", False, "true or false", lambda v: isinstance(v, bool)),
        ("rank_pattern", {}, "an object of whole numbers", lambda v: _pattern(v, _count)),
        ("alpha_pattern", {}, "an object of numbers above 0", lambda v: _pattern(v, _positive)),
        ("target_modules", None, "names or an expression", _names),
        ("exclude_modules", None, "names or an expression", lambda v: v is None or _names(v)),
        ("layers_to_transform", None, "a number or numbers of blocks", lambda v: v is None or _numbers(v)),
        ("layers_pattern", None, "an expression or several", lambda v: v is None or _names(v)),
        ("modules_to_save", None, "names", lambda v: v is None or (isinstance(v, list) and _names(v))),
        *((name, None, "a text", lambda v: v is None or isinstance(v, str)) for name in _TEXTS),
    ) if not fits(values.get(name, usual))]  # fmt: skip
    if wrong:
        raise AdapterFormatError(f"The config of the PEFT adapter has {len(wrong)} problem(s): {'; '.join(wrong)}.")
    targets, layers = values["target_modules"], values.get("layers_to_transform")
    if isinstance(targets, str) and layers is not None:
        raise AdapterFormatError(
            f"The config of the PEFT adapter has layers_to_transform ({_short(layers)}) together with an expression as "
            f"target_modules ({_short(targets)}), which PEFT refuses: which layers are meant is not known."
        )
    return PeftFields(
        rank=values.get("r", 8),
        alpha=float(values.get("lora_alpha", 8)),
        rank_pattern=values.get("rank_pattern") or {},
        alpha_pattern=values.get("alpha_pattern") or {},
        rslora=values.get("use_rslora", False),
        dropout=float(values.get("lora_dropout", 0.0)),
        targets=_kept(targets),
        excluded=_kept(values.get("exclude_modules")),
        layers=None if layers in (None, []) else (layers,) if isinstance(layers, int) else tuple(layers),
        patterns=_listed(_kept(values.get("layers_pattern"))),
        saved=tuple(values.get("modules_to_save") or ()),
        base_name=values.get("base_model_name_or_path") or None,
        revision=values.get("revision") or None,
        version=values.get("peft_version") or None,
    )


_TEXTS: Final = ("base_model_name_or_path", "revision", "peft_version")


def _allowed(name: str, value: Any) -> bool:
    if name == "init_lora_weights":
        return isinstance(value, (bool, str)) and value in INITIAL
    if name in READ or name in IDLE:
        return True
    if name in OFF:
        return value is None or (value == OFF[name] and type(value) is type(OFF[name]))
    return value is None or value is False or value in ({}, [], "")  # of another version, and not in use


def _matched(pattern: Mapping[str, Any], layer: str, usual: float, what: str) -> Any:
    """The value of the first expression that ends ``layer``, as PEFT looks it up."""
    for expression, value in pattern.items():
        if _found(regex.match, rf"(.*\.)?({expression})$", layer, expression, what):
            return value
    return usual


def _named(names: tuple[str, ...] | str, layer: str, what: str) -> bool:
    """Whether ``names`` hold the layer or an ending of it, or are an expression for the whole of it."""
    if isinstance(names, str):
        return _found(regex.fullmatch, names, layer, names, what) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _block(patterns: Sequence[str], layer: str) -> int | None:
    """The number of the block in the name of a layer, as PEFT reads it."""
    ways = [(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", pattern) for pattern in patterns]
    for way, pattern in ways or [(r".*?\.[^.]*\.(?P<idx>\d+)\.", "")]:
        if found := _found(regex.match, way, layer, pattern, "layers_pattern"):
            return int(found["idx"])
    return None


def _found(search: Callable[..., Any], pattern: str, layer: str, expression: str, what: str) -> Any:
    """The match of ``pattern``, which was made of the file's ``expression``, or None."""
    try:
        # Such a file comes from anywhere, and an expression can be made to search for ever.
        return search(pattern, layer, timeout=_PATIENCE)
    except (regex.error, TimeoutError) as error:
        raise AdapterFormatError(
            f"The expression {_short(expression)} in {what} of the PEFT adapter cannot be used: {error}."
        ) from error


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 1 << 20


def _pattern(value: Any, fits: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(fits(each) for each in value.values()))


def _names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _numbers(value: Any) -> bool:
    return type(value) is int or (isinstance(value, list) and all(type(number) is int for number in value))


def _kept(names: str | list[str] | None) -> tuple[str, ...] | str:
    return (names or ()) if isinstance(names, str) else tuple(names or ())


def _listed(names: tuple[str, ...] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
