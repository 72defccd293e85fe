"""How an adapter's tensors are called in its file, and the ``adapter_config.json`` beside it.

In memory (`Tuned.state_dict`) a name is a path in the backbone, or begins with ``head.``. In the file it is
what other programs expect, here for BERT::

    strategy   head     encoder.layer.0...                          head.classifier... or head.linear...
    LoRA       family   base_model.model.bert.encoder.layer.0...    base_model.model.classifier.weight
    LoRA       free     base_model.model.encoder.layer.0...         head.linear.weight
    others     family   bert.encoder.layer.0...                     classifier.weight
    others     free     bert.encoder.layer.0...                     head.linear.weight

LoRA with a family head is what PEFT writes for ``AutoModelForSequenceClassification`` (SEQ_CLS), LoRA with a
free head what it writes for ``AutoModel`` (FEATURE_EXTRACTION); PEFT passes over the free head, which only we
and the card's snippet read. Strategies that declare a ``peft_ending`` are laid out as LoRA is. The others are named
as in transformers' ``ForSequenceClassification`` class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lora_clf.adapters.header import Header, TensorEntry
from lora_clf.adapters.manifest import KEPT
from lora_clf.base.architecture import ARCHITECTURES
from lora_clf.base.catalogue import CATALOGUE
from lora_clf.errors import AdapterFormatError, UsageError

if TYPE_CHECKING:
    from lora_clf.tuners.base import Tuner

PEFT = "base_model.model."
HEAD = "head."
# PEFT adds these two to every SEQ_CLS adapter, there or not, and matches them by the end of a module's name.
PEFT_HEADS = ("classifier", "score")
_NUMBER = re.compile("[0-9]{1,9}")  # of a block
# What adapter_config.json repeats of the header where it is not PEFT's.
_REPEATED = (
    *("schema", "digest", "strategy", "settings", "task", "task_settings", "labels", "positive_label", "threshold"),
    *("temperature", "head", "verbalizer", "pooling", "max_length", "truncation", "base_name", "base_digest"),
    "tokenizer_digest",
)


@dataclass(frozen=True)
class Layout:
    """The names of one kind of adapter.

    Attributes:
        backbone: what stands before a path in the backbone.
        head: what stands in place of ``head.`` before a parameter of the head.
    """

    backbone: str
    head: str

    def in_file(self, name: str) -> str:
        """The name in the file of the tensor that is ``name`` in memory."""
        return self.head + name.removeprefix(HEAD) if name.startswith(HEAD) else self.backbone + name

    def in_memory(self, name: str) -> str:
        """The name in memory of the tensor that is ``name`` in the file, which `knows` it."""
        # The backbone's prefix first: that of a family head is the beginning of it, or empty.
        if name.startswith(self.backbone):
            return name.removeprefix(self.backbone)
        return HEAD + name.removeprefix(self.head)

    def knows(self, name: str) -> bool:
        """Whether ``name`` can be a name in a file of this layout."""
        return self.in_file(self.in_memory(name)) == name


def layout_of(header: Header) -> Layout:
    """The layout of the adapter that ``header`` describes.

    Raises:
        AdapterFormatError: it was made on an architecture that this version does not know.
    """
    if header.architecture not in ARCHITECTURES:
        raise AdapterFormatError(
            f"The adapter was made on a {header.architecture!r} base, an architecture that this version of "
            f"lora_clf does not know. It knows: {', '.join(sorted(ARCHITECTURES))}."
        )
    architecture = ARCHITECTURES[header.architecture]
    family = header.pooling == "family"
    if not in_peft_layout(header):
        return Layout(f"{architecture.prefix}.", "" if family else HEAD)
    if family:
        return Layout(f"{PEFT}{architecture.prefix}.", PEFT)
    # AutoModel is the backbone itself; of an encoder-decoder it is the whole of which we have the encoder.
    return Layout(f"{PEFT}{architecture.part}." if architecture.part else PEFT, HEAD)


def in_peft_layout(header: Header) -> bool:
    """Whether the folder of the adapter that ``header`` describes is one that PEFT reads."""
    if header.low_rank:
        return True
    if header.tensors and not any(entry.name.startswith(PEFT) for entry in header.tensors):
        return False  # and no strategy need be imported to know
    return _kind(header).peft_ending is not None


def _kind(header: Header) -> type[Tuner]:
    from lora_clf.tuners import strategies
    from lora_clf.tuners.base import Tuner

    return strategies().get(header.strategy, Tuner)


def has_head(header: Header) -> bool:
    """Whether tensors of a head are among those of the file."""
    layout = layout_of(header)
    return any(layout.in_memory(entry.name).startswith(HEAD) for entry in header.tensors)


def head_width(header: Header) -> int | None:
    """The width of the vectors that the head gets, as its tensors show it."""
    layout = layout_of(header)
    widths = {e.shape[1] for e in header.tensors if len(e.shape) == 2 and layout.in_memory(e.name).startswith(HEAD)}
    return widths.pop() if len(widths) == 1 else None


def config_of(header: Header) -> dict[str, Any]:
    """The contents of ``adapter_config.json``: a function of the header and nothing else.

    For LoRA it is a PEFT ``LoraConfig``. Fields that PEFT has for other methods are left out, so that older
    and newer versions of it read the file without a warning.
    """
    repository, revision = hub_name(header.base_name)
    if not in_peft_layout(header):
        where = {"base_model_name_or_path": repository, "revision": revision}
        return {name: value for name, value in header.as_dict().items() if name in _REPEATED} | where
    family = header.pooling == "family"
    common = {
        "peft_version": header.versions.get("peft", ""),
        "task_type": "SEQ_CLS" if family else "FEATURE_EXTRACTION",
        "base_model_name_or_path": repository,
        "revision": revision,
        "inference_mode": True,
        "modules_to_save": list(_modules_to_save(layout_of(header), header.tensors)) if family else None,
    }
    if not header.low_rank:
        return {**common, **_method_of(header)}
    return {
        **common,
        "peft_type": "LORA",
        "r": header.settings["rank"],
        "lora_alpha": _whole(header.settings["alpha"]),
        "lora_dropout": header.settings.get("dropout", 0.0),
        "target_modules": list(_adapted(header.tensors, ".lora_A.weight")),
        "fan_in_fan_out": header.fan_in_fan_out,
        "bias": "none",
        "use_rslora": _rank_stabilised(header),
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "init_lora_weights": True,
    }


def hub_name(base_name: str) -> tuple[str, str | None]:
    """The Hub repository and revision of a base's portable name; the name itself where it has neither."""
    if base_name in CATALOGUE:
        return CATALOGUE[base_name].repo, CATALOGUE[base_name].revision
    repository, _, revision = base_name.partition("@")
    return repository, revision or None


def _rank_stabilised(header: Header) -> bool:
    """Whether the scaling is alpha / sqrt(rank), beside alpha / rank the one there is; at rank 1 they are the same."""
    alpha, rank = header.settings["alpha"], header.settings["rank"]
    sound = isinstance(alpha, (int, float)) and isinstance(rank, int) and rank > 0
    return sound and header.scaling != alpha / rank


def _method_of(header: Header) -> dict[str, Any]:
    """What PEFT's config says of a method other than LoRA: its settings and the layers it adapts."""
    kind = _kind(header)
    assert kind.peft_ending is not None
    try:
        tuner = kind(**header.settings)
    except (UsageError, TypeError) as error:
        raise AdapterFormatError(f"The adapter's settings do not fit its strategy: {error}") from error
    layers = _adapted(header.tensors, kind.peft_ending)
    return {
        "peft_type": kind.method,
        **tuner.peft_settings(),
        **tuner.peft_layers(layers),
        "fan_in_fan_out": ARCHITECTURES[header.architecture].transposed,
        "bias": "none",
    }


@lru_cache(KEPT)
def _adapted(tensors: tuple[TensorEntry, ...], ending: str) -> Mapping[str, tuple[int, ...]]:
    """The adapted modules as PEFT finds them, with the shape of that tensor: full names, in the order of the blocks."""
    found = {
        entry.name.removesuffix(ending).removeprefix(PEFT): entry.shape
        for entry in tensors
        if entry.name.endswith(ending)
    }
    return {name: found[name] for name in sorted(found, key=by_number)}


@lru_cache(KEPT)
def _modules_to_save(layout: Layout, tensors: tuple[TensorEntry, ...]) -> Sequence[str]:
    """The parts of the classification model that are the head, and the two that PEFT always names."""
    names = (entry.name for entry in tensors if not entry.name.startswith(layout.backbone))
    children = {layout.in_memory(name).split(".")[1] for name in names}
    return *sorted(children - set(PEFT_HEADS)), *PEFT_HEADS


def by_number(name: str) -> list[tuple[int, str]]:
    """A sorting key that puts layer 2 before layer 10."""
    return [(int(part), "") if _NUMBER.fullmatch(part) else (-1, part) for part in name.split(".")]


def _whole(number: float) -> float:
    """The number as an integer where it is one: PEFT's field for alpha is one."""
    return int(number) if float(number).is_integer() else number
