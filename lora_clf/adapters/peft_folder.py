"""A folder that PEFT's ``save_pretrained`` wrote, read without trusting a byte of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lora_clf.adapters.canonical import parse
from lora_clf.adapters.disk import Place, read_from
from lora_clf.adapters.file import CONFIG, FILE_CAP, MODEL
from lora_clf.adapters.peft_fields import PeftFields, read_fields
from lora_clf.adapters.safetensors_file import HEADER_CAP, KEY, table_length
from lora_clf.errors import AdapterError, AdapterFormatError, AdapterNotFoundError

if TYPE_CHECKING:
    from torch import Tensor

PICKLE: Final = "adapter_model.bin"


@dataclass(frozen=True, eq=False)
class Foreign:
    """A PEFT adapter as it was read: its fields, its tensors by their names in the file, labels where it has some."""

    fields: PeftFields
    tensors: Mapping[str, Tensor]
    labels: tuple[str, ...] | None


def is_foreign(folder: Path | str) -> bool:
    """Whether ``folder`` holds an adapter that PEFT saved, and not one of ours; of its tensors none is read."""
    try:
        return read_from(Path(folder), _is_peft)
    except AdapterError:
        return False


def read_foreign(folder: Path | str, *, file_cap: int = FILE_CAP) -> Foreign:
    """Read what PEFT saved.

    Raises:
        AdapterNotFoundError: there is no adapter.
        AdapterFormatError: it is one of ours, a pickle, damaged, or has fields that we cannot follow.
    """
    return read_from(Path(folder), lambda place: _read(place, file_cap))


def _is_peft(place: Place) -> bool:
    config = parse(place.read(CONFIG, HEADER_CAP), CONFIG)
    if not isinstance(config, dict) or "peft_type" not in config:
        return False
    try:
        with place.open(MODEL) as file:
            size = os.fstat(file.fileno()).st_size
            top = file.read(8)
            top += file.read(table_length(top, size))
    except AdapterNotFoundError:
        return (place.folder / PICKLE).exists()
    return KEY not in _metadata(top, size)


def _read(place: Place, file_cap: int) -> Foreign:
    try:
        data = place.read(MODEL, file_cap)
    except AdapterNotFoundError:
        if (place.folder / PICKLE).exists():
            raise AdapterFormatError(
                f"The adapter in {place.folder} is a {PICKLE}: a pickle, which can run any program while it is "
                "read, so it is not read here. Where you trust it, let PEFT write it anew: "
                f"PeftModel.from_pretrained(model, {str(place.folder)!r}).save_pretrained(NEW_FOLDER), with model as "
                "it was trained on; that writes safetensors."
            ) from None
        raise
    if KEY in _metadata(data):
        raise AdapterFormatError(
            f"The adapter in {place.folder} is one of lora_clf already: load_adapter({str(place.folder)!r}, base) "
            "takes it as it is."
        )
    config = parse(place.read(CONFIG, HEADER_CAP), CONFIG)
    if not isinstance(config, dict):
        raise AdapterFormatError(f"{CONFIG} holds no JSON object.")
    fields = read_fields(config)
    return Foreign(fields, _tensors(data), _labels_beside(place))


def _tensors(data: bytes) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise AdapterFormatError(f"{MODEL} cannot be read: {error}") from error
    if odd := sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point()):
        raise AdapterFormatError(f"Tensors of {MODEL} are no floating-point numbers: {', '.join(odd[:5])}.")
    if bad := sorted(name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.float()).all())):
        raise AdapterFormatError(f"Tensors of {MODEL} hold NaN or infinity: {', '.join(bad[:5])}.")
    return tensors


def _metadata(data: bytes, size: int | None = None) -> dict[str, Any]:
    """The metadata of a safetensors file of ``size`` bytes, of which ``data`` holds at least the table."""
    length = table_length(data[:8], size or len(data))
    table = parse(data[8 : 8 + length].rstrip(b" "), f"The table of {MODEL}")
    metadata = table.get("__metadata__") if isinstance(table, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _labels_beside(place: Place) -> tuple[str, ...] | None:
    """The labels of a config.json that lies beside the adapter, where it names them."""
    try:
        config = parse(place.read("config.json", HEADER_CAP), "config.json")
    except (AdapterNotFoundError, AdapterFormatError):
        return None
    names = config.get("id2label") if isinstance(config, dict) else None
    if not isinstance(names, dict) or not names:
        return None
    labels = tuple(names.get(str(number)) for number in range(len(names)))
    named = all(isinstance(label, str) and not re.fullmatch(r"LABEL_\d+", label) for label in labels)
    return tuple(str(label) for label in labels) if named else None
