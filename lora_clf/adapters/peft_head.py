"""The classification head in a PEFT adapter: found under PEFT's names, completed from the base's own checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_clf.adapters.layout import HEAD, PEFT
from lora_clf.base.head import output_layer
from lora_clf.errors import AdapterFormatError, UnsupportedBaseError

if TYPE_CHECKING:
    from torch import Tensor

    from lora_clf.base.base import Base


def split_head(tensors: Mapping[str, Tensor], base: Base) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The family head's tensors by our names (``head.`` in front), and what is left of the file.

    Raises:
        AdapterFormatError: there is no head, a part of it is lost, or its last layer is no matrix.
        UnsupportedBaseError: the architecture has no family head.
    """
    if base.architecture.family is None:
        raise UnsupportedBaseError(
            f"A classifier of PEFT on a {base.architecture.model_type} base runs the decoder too, which is not loaded "
            "here; train it with lora_clf and --pooling mean."
        )
    wanted = {f"{HEAD}{name}": shape for name, shape in _shapes(base, 2).items()}
    head = {name: tensors[PEFT + name.removeprefix(HEAD)] for name in wanted if _in_file(name) in tensors}
    rest = {name: tensor for name, tensor in tensors.items() if HEAD + name.removeprefix(PEFT) not in wanted}
    output = _output(base)
    if not any(name.startswith(output) for name in head):
        names = ", ".join(_in_file(name) for name in wanted if name.startswith(output))
        raise AdapterFormatError(
            f"It has no classification head ({names}), so it cannot classify: it was saved without modules_to_save, or "
            "for a model without a head."
        )
    if missing := sorted(wanted.keys() - head.keys()):
        # PEFT saves of ModernBERT's head the last layer; the rest is as in the checkpoint of the base, if it is there.
        head |= _from_base(base, missing)
    if (weight := head[f"{output}weight"]).ndim != 2:
        raise AdapterFormatError(
            f"{_in_file(output)}weight is {tuple(weight.shape)}, expected outputs and width, two sizes."
        )
    return head, rest


def _in_file(name: str) -> str:
    return PEFT + name.removeprefix(HEAD)


def _shapes(base: Base, classes: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in base.view(classes, "family").head.state_dict().items()}


def _output(base: Base) -> str:
    """The name of the head's last layer, as ``head.classifier.``."""
    head = base.view(2, "family").head
    last = output_layer(head)
    return next(f"{HEAD}{name}." for name, module in head.named_modules() if module is last)


def outputs(head: Mapping[str, Tensor], base: Base) -> int:
    """How many outputs the head has."""
    return int(head[f"{_output(base)}weight"].shape[0])


def _from_base(base: Base, names: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of the head that stand in the base's own checkpoint.

    Raises:
        AdapterFormatError: they do not, so they were drawn at random in the other program and are lost.
    """
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in sorted(base.folder.glob("*.safetensors")) if base.folder is not None else []:
        with safe_open(file, "pt") as tensors:
            there = set(tensors.keys())
            found |= {name: tensors.get_tensor(name.removeprefix(HEAD)) for name in names if name[len(HEAD) :] in there}
    if lost := [_in_file(name) for name in names if name not in found]:
        raise AdapterFormatError(
            f"A part of its head is missing: {', '.join(lost)}. The base {base.name} does not have it either, so it "
            "was drawn at random where the adapter was trained, and is lost. Train it again with modules_to_save="
            f"{sorted({name.removeprefix(HEAD).split('.')[0] for name in names})} added."
        )
    return found
