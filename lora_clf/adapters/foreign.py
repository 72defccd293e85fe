"""Adapters that PEFT saved, brought into our form: factors, head and labels on a base of ours.

PEFT stores neither labels nor any digest. The labels come from the person who loads it. Of the base can be checked:
that it has every layer that the file adapts, in the right shapes, and that the name the file gives its base, where
both are on the Hub, is the name of this one. From then on the adapter carries the digest of this base and canaries, as
any of ours.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.base_check import BASE_CHECKS
from lora_clf.adapters.factors import A, B, Factors, factors_of, tuned_with
from lora_clf.adapters.file import FILE_CAP
from lora_clf.adapters.fused import fuse_layers
from lora_clf.adapters.layout import PEFT, hub_name
from lora_clf.adapters.peft_fields import PeftFields
from lora_clf.adapters.peft_folder import is_foreign as is_foreign
from lora_clf.adapters.peft_folder import read_foreign
from lora_clf.adapters.peft_head import outputs, split_head
from lora_clf.adapters.peft_layers import check_layers, check_saved, check_targets, linear_shapes, shapes_apart
from lora_clf.adapters.provenance import make_header
from lora_clf.adapters.wording import few
from lora_clf.base.catalogue import CATALOGUE
from lora_clf.errors import (
    AdapterFormatError,
    StateError,
    TargetError,
    UsageError,
    WrongBaseError,
    unknown,
)
from lora_clf.tuners import create

if TYPE_CHECKING:
    from torch import Tensor

    from lora_clf.base.base import Base
    from lora_clf.tuners.base import Tuned

STRATEGIES: Final = ("lora", "lora-scratch", "full")
"""What a foreign adapter can become: LoRA where only linear layers of the blocks are adapted, else all weights."""

ENDINGS: Final = (A, B)
_HUB: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BARE: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_LONGER: Final = 1000  # tokens: so that nothing is cut off
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def load_foreign(
    folder: Path | str,
    base: Base,
    *,
    labels: Sequence[str] | None = None,
    positive_label: str | None = None,
    max_length: int | None = None,
    truncation: str = "right",
    strategy: str = "lora",
    base_check: str = "strict",
    fuse_qkv: bool = False,
    file_cap: int = FILE_CAP,
) -> Adapter:
    """Bring an adapter that PEFT saved onto ``base``; saving it writes one of ours.

    Args:
        folder: where PEFT saved it.
        base: the base it was trained on; PEFT stores nothing by which that could be proved.
        labels: in the order of the head's outputs; needed where the file has none.
        positive_label: of two labels the one that is looked for.
        max_length: tokens a text; default: the base's.
        truncation: the side that is cut away.
        strategy: "lora", "lora-scratch", or "full", which takes layers outside the blocks too, at the size of the base.
        base_check: "strict" refuses a base whose name on the Hub is another than the file's; "warn" says so in one
            warning with both names, "off" says nothing.
        fuse_qkv: whether separate query, key and value layers belong into the base's fused one.
        file_cap: the largest file that is read, in bytes.

    Raises:
        AdapterNotFoundError: there is none.
        AdapterFormatError: it is damaged, incomplete, or of a kind that we cannot follow; the message names the field.
        WrongBaseError: layers, shapes or the name of the base do not fit.
        UnsupportedBaseError: the architecture has no family head.
        UsageError: no labels, or not as many as the head has outputs.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    found = read_foreign(folder, file_cap=file_cap)
    named = check_name(folder, found.fields, base, base_check)
    try:
        _check_architecture(found.tensors, base)
        head, rest = split_head(found.tensors, base)
        chosen = _labels(folder, labels or found.labels, outputs(head, base))
        factors = _factors(found.fields, rest, base)
        shapes = shapes_apart(base, factors) if fuse_qkv else linear_shapes(base)
        check_layers(base, factors, shapes)
        check_targets(found.fields, base, factors, shapes)
        check_saved(found.fields, base)
        if fuse_qkv:
            factors = fuse_layers(base, factors)
        tuned = _tuned(base, factors, head, len(chosen), strategy, found.fields.dropout)
    except (AdapterFormatError, WrongBaseError) as error:
        raise type(error)(f"The PEFT adapter in {folder} cannot be used. {error}") from error
    header = make_header(
        base,
        tuned,
        labels=chosen,
        positive_label=_one_of(positive_label, chosen),
        max_length=max_length,
        truncation=truncation,
        training=_origin(found.fields),
    )
    if named == "other" and base_check == "warn":
        said, here = _shown(found.fields, base)
        warnings.warn(f"The PEFT adapter in {folder} names the base {said}; this base is {here}.", stacklevel=2)
    return Adapter(base, tuned, header)


def check_name(folder: Path | str, fields: PeftFields, base: Base, mode: str = "strict") -> str:
    """What names and revisions of the two bases say: "equal", "other", or "unknown" where they cannot be compared.

    Raises:
        WrongBaseError: they are other ones and ``mode`` is "strict".
        UsageError: unknown ``mode``.
    """
    if mode not in BASE_CHECKS:
        raise unknown("base check", mode, BASE_CHECKS)
    said, revision = named_base(fields)
    ours, own = hub_name(base.name)
    found = _compared(said, ours)
    if found == "equal" and revision is not None and revision != own:
        # Two commits are two bases; which commit a branch or a tag meant when it was trained is not known.
        found = "other" if _COMMIT.fullmatch(revision) and _COMMIT.fullmatch(own or "") else "unknown"
    if found == "other" and mode == "strict":
        shown, here = _shown(fields, base)
        raise WrongBaseError(
            f"The PEFT adapter in {folder} was trained on {shown}, by its adapter_config.json; this base is "
            f"{base.name} ({here}). Load that base: --base {shown}; or, if it is the same under another name, "
            "--base-check off."
        )
    return found


def _shown(fields: PeftFields, base: Base) -> tuple[str, str]:
    """The names of the two bases on the Hub, with their revisions."""
    shown, here = (f"{name}@{at}" if at else name for name, at in (named_base(fields), hub_name(base.name)))
    return shown, here


def read_otherwise(base: Base) -> list[str]:
    """The names of the fixed sentences of which transformers' own tokenizer of ``base`` makes other ids than ours.

    Its PEFT adapters were trained on those ids. None where transformers makes no tokenizer of the base's files.
    """
    from lora_clf.adapters.canary import SENTENCES
    from lora_clf.adapters.plain import CHECKED
    from lora_clf.base.transformers_folder import ids_of_transformers

    texts = [SENTENCES[name] for name in CHECKED]
    theirs = ids_of_transformers(base, texts)
    if theirs is None:
        return []
    ours = base.tokenizer.encode(texts, max(map(len, theirs)) + _LONGER).ids
    return [name for name, one, other in zip(CHECKED, theirs, ours, strict=True) if one != other.tolist()]


def named_base(fields: PeftFields) -> tuple[str, str | None]:
    """The repository, or whatever else stands there, and the revision of the base that the file names.

    None is the main branch: nobody knows which commit it was then.
    """
    said, written = hub_name(fields.base_name or "")
    revision = fields.revision or (None if fields.base_name in CATALOGUE else written)
    return said, None if revision == "main" else revision


def _compared(said: str, ours: str) -> str:
    if said.lower() == ours.lower():
        return "equal"
    if not _HUB.fullmatch(ours):
        return "unknown"
    if _HUB.fullmatch(said):
        return "other"
    # Old names on the Hub have no owner. One that fits may as well be that of a folder.
    bare = _BARE.fullmatch(said) and said.lower() != ours.rpartition("/")[2].lower()
    return "other" if bare else "unknown"


def _check_architecture(tensors: Mapping[str, Tensor], base: Base) -> None:
    """Refuse a base that is called otherwise inside PEFT's model: it is of another architecture."""
    prefix = f"{PEFT}{base.architecture.prefix}."
    adapted = sorted(name for name in tensors if name.endswith(ENDINGS))
    if base.architecture.family and adapted and not any(name.startswith(prefix) for name in adapted):
        raise WrongBaseError(
            f"It adapts layers such as {adapted[0]}; on a {base.architecture.model_type} base such as {base.name} they "
            f"would begin with {prefix}"
        )


def _labels(folder: Path | str, labels: Sequence[str] | None, outputs: int) -> tuple[str, ...]:
    if outputs < 2:
        raise AdapterFormatError("Its head has one output: it is a regression, not a classifier.")
    if labels is None:
        raise UsageError(
            f"PEFT stores no labels, so the adapter in {folder} has none: name its {outputs} in the order of the "
            f"outputs, as --labels {','.join(f'label{number}' for number in range(outputs))} or labels=[...]."
        )
    if isinstance(labels, str) or len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
        raise UsageError(f"Labels {labels!r}: expected a list of different names.")
    if len(labels) != outputs:
        raise UsageError(
            f"{len(labels)} labels ({', '.join(labels)}) for the adapter in {folder}, whose head has {outputs} outputs."
        )
    return tuple(labels)


def _one_of(positive: str | None, labels: Sequence[str]) -> str | None:
    if positive is not None and positive not in labels:
        raise unknown("label", positive, labels)
    if positive is not None and len(labels) != 2:
        raise UsageError(f"--positive-label {positive}: only of two labels one is looked for; there are {len(labels)}.")
    return positive


def _factors(fields: PeftFields, tensors: Mapping[str, Tensor], base: Base) -> dict[str, Factors]:
    """The factors by layer of the backbone, each with the scaling of its own rank and alpha."""
    prefix = f"{PEFT}{base.architecture.prefix}."
    ours = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix) and name.endswith(ENDINGS)}
    if strange := sorted(tensors.keys() - ours.keys()):
        raise AdapterFormatError(
            f"Its tensors have no place in LoRA beside the layers of a {base.architecture.model_type} base and its "
            f"head: {few(strange)}. Expected were {prefix}... and the head's."
        )
    if not ours:
        raise AdapterFormatError("It holds no low-rank factors.")
    try:
        plain = factors_of({name.removeprefix(prefix): tensor.float() for name, tensor in ours.items()}, 1.0)
    except StateError as error:
        raise AdapterFormatError(f"{error}.") from error
    found, wrong = {}, []
    for layer, part in plain.items():
        full = f"{base.architecture.prefix}.{layer}"
        if part.rank != (said := fields.rank_of(full)):
            wrong.append(f"{layer} has rank {part.rank}, by r and rank_pattern it is {said}")
        found[layer] = replace(part, scaling=fields.scaling_of(full))
    if wrong:
        raise AdapterFormatError(f"Factors and config disagree: {'; '.join(wrong[:5])}.")
    return found


def _tuned(
    base: Base, factors: Mapping[str, Factors], head: dict[str, Tensor], classes: int, strategy: str, dropout: float
) -> Tuned:
    try:
        if strategy != "full":
            return tuned_with(base, factors, head, classes=classes, pooling="family", engine=strategy, dropout=dropout)
        return written(base, factors, head, classes)
    except TargetError as error:
        raise AdapterFormatError(
            f"{error} LoRA here adapts only those; --strategy full (strategy='full') writes the change into the "
            "weights instead, at the size of the base."
        ) from error
    except StateError as error:
        raise AdapterFormatError(f"{error}.") from error


def written(base: Base, factors: Mapping[str, Factors], head: Mapping[str, Tensor], classes: int) -> Tuned:
    """A ``full`` classifier with the change of ``factors`` in its weights."""
    from transformers.pytorch_utils import Conv1D

    tuned = create("full").prepare(base.view(classes, "family"))
    state = tuned.state_dict() | dict(head)
    for layer, part in factors.items():
        change = part.change()
        transposed = isinstance(base.backbone.get_submodule(layer), Conv1D)
        name = f"{layer}.weight"
        state[name] = (state[name].double() + (change.T if transposed else change)).float()
    tuned.load_state_dict(state)
    return tuned


def _origin(fields: PeftFields) -> dict[str, Any]:
    """What the record says of where it came from; no path."""
    named = hub_name(fields.base_name or "")[0]
    found = {"converted_from": "peft", "peft_version": fields.version, "use_rslora": fields.rslora or None}
    found["base_named"] = named if _HUB.fullmatch(named) else None
    return {name: value for name, value in found.items() if value is not None}


def own_name(fields: PeftFields) -> str | None:
    """What `load_base` calls the base that the file names; None where it names none."""
    if fields.base_name is None:
        return None
    said, revision = named_base(fields)
    short = {(entry.repo, known): entry.name for entry in CATALOGUE.values() for known in (None, entry.revision)}
    if found := short.get((said, revision)):
        return found
    return f"{said}@{revision}" if revision and _HUB.fullmatch(said) else fields.base_name
