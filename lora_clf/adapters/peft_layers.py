"""The layers that PEFT would adapt on a base, held against those for which a file has factors.

Where the two sets differ, something is wrong that no tensor tells: a part of the file was lost, it belongs to a larger
base, or PEFT would leave a part of it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from lora_clf.adapters.factors import Factors
from lora_clf.adapters.fused import TRIPLES, check_fused, rows_of
from lora_clf.adapters.peft_fields import ALL_LINEAR, PeftFields
from lora_clf.base.targets import LINEAR, linear_shape
from lora_clf.errors import AdapterFormatError, WrongBaseError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

Shapes = Mapping[str, tuple[int, int]]
"""(inputs, outputs) by the name of a linear layer of the backbone."""


def linear_shapes(base: Base) -> Shapes:
    """The linear layers that ``base`` has in transformers' classification class."""
    return {name: linear_shape(module) for name, module in _modules(base) if isinstance(module, LINEAR)}


def shapes_apart(base: Base, adapted: Iterable[str]) -> Shapes:
    """The same where query, key and value are layers of their own, called as in ``adapted``, not one fused layer.

    Raises:
        TargetError: the base has no fused layer.
    """
    check_fused(base)
    leaves = {layer.rpartition(".")[2] for layer in adapted}
    names = next((names for names in TRIPLES if leaves & set(names)), None)
    found: dict[str, tuple[int, int]] = {}
    for layer, shape in linear_shapes(base).items():
        if names is None or not layer.endswith(f".{base.architecture.attention[0]}"):
            found[layer] = shape
            continue
        beside = layer.rpartition(".")[0]
        for name, rows in zip(names, rows_of(base, layer), strict=True):
            found[f"{beside}.{name}"] = shape[0], len(rows)
    return found


def check_layers(base: Base, factors: Mapping[str, Factors], shapes: Shapes) -> None:
    """Refuse layers that the base does not have, or has in other shapes.

    Raises:
        WrongBaseError: there are such.
    """
    missing = [layer for layer in factors if layer not in shapes]
    apart = {name for names in TRIPLES for name in names}
    ending = f".{base.architecture.attention[0]}"
    fused = len(base.architecture.attention) == 1 and any(layer.endswith(ending) for layer in shapes)
    if missing and fused and {layer.rpartition(".")[2] for layer in missing} <= apart:
        raise WrongBaseError(
            f"It adapts query, key and value apart ({missing[0]}); the base {base.name} has them in one layer, "
            f"{ending[1:]}. --fuse-qkv (fuse_qkv=True) brings them there."
        )
    if missing:
        raise WrongBaseError(f"The base {base.name} has no linear layer {', '.join(missing[:5])}, which it adapts.")
    wrong = [
        f"{layer} goes from {part.a.shape[1]} to {part.b.shape[0]}, here from {inputs} to {outputs}"
        for layer, part in factors.items()
        for inputs, outputs in [shapes[layer]]
        if (part.a.shape[1], part.b.shape[0]) != (inputs, outputs)
    ]
    if wrong:
        raise WrongBaseError(
            f"Its layers have other shapes than those of the base {base.name}: {'; '.join(wrong[:3])}."
        )


def check_targets(fields: PeftFields, base: Base, factors: Mapping[str, Factors], shapes: Shapes) -> None:
    """Refuse a file that lacks layers which its config selects, or has others.

    Raises:
        AdapterFormatError: it does, or has an expression that cannot be used.
    """
    embeddings = [name for name, module in _modules(base) if isinstance(module, nn.Embedding)]
    linear_only = isinstance(fields.targets, str) and fields.targets.lower() == ALL_LINEAR
    names = [*shapes, *(() if linear_only else embeddings)]
    selected = {layer for layer in names if fields.selects(f"{base.architecture.prefix}.{layer}")}
    if missing := [layer for layer in names if layer in selected - factors.keys()]:
        raise AdapterFormatError(
            f"It is not whole, or of a larger base: its config names {len(selected)} layers of the base {base.name}, "
            f"and there are no factors for {len(missing)} of them ({', '.join(missing[:3])})."
        )
    if strange := [layer for layer in factors if layer not in selected]:
        raise AdapterFormatError(
            f"It has factors for {len(strange)} layers ({', '.join(strange[:3])}) that its config does not select, so "
            "PEFT leaves them out: target_modules, exclude_modules, layers_to_transform or layers_pattern is not that "
            "of its training."
        )


def check_saved(fields: PeftFields, base: Base) -> None:
    """Refuse a file whose config says that whole layers of the backbone were trained; it has been seen to hold none.

    Raises:
        AdapterFormatError: it does.
    """
    names = {name: f"{base.architecture.prefix}.{name}".rstrip(".") for name, module in _modules(base)
             if any(True for _ in module.parameters())}  # fmt: skip
    if lost := [name or "all of it" for name, full in names.items() if full.endswith(fields.saved)]:
        raise AdapterFormatError(
            f"It is not whole: its config names {len(lost)} trained layers of the base ({', '.join(lost[:3])}) in "
            "modules_to_save, and their weights are not in the file. Save it again from the model that was trained."
        )


def _modules(base: Base) -> Iterable[tuple[str, nn.Module]]:
    """The modules of the backbone; its pooler only where transformers' classification class has one."""
    pooler = base.architecture.family == "pooler"
    return ((n, m) for n, m in base.backbone.named_modules() if pooler or not n.startswith("pooler."))
