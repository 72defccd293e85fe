"""An adapter of a base with fused attention as PEFT's folder for a model that has query, key and value apart.

The way out for programs that compute the three in layers of their own, as `lora_clf.adapters.foreign` with
``fuse_qkv`` is the way in. The folder is PEFT's alone: no base of ours has such layers, so there is no header.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.disk import write_in_place_of
from lora_clf.adapters.factors import Factors, low_rank, uniform
from lora_clf.adapters.file import CONFIG, MODEL, check_free
from lora_clf.adapters.fused import TRIPLES, split_layers
from lora_clf.adapters.header import Header, TensorEntry
from lora_clf.adapters.layout import HEAD, config_of, layout_of
from lora_clf.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor


def write_apart(adapter: Adapter, folder: Path | str, *, query: str = TRIPLES[0][0], force: bool = False) -> Path:
    """Write ``adapter`` with its fused layers split; ``query`` tells what the three are called (`TRIPLES`).

    Ranks that nothing uses are left out, so what was fused from rank r comes back with rank r.

    Raises:
        TunerError: it is no LoRA adapter.
        TargetError: its base has no fused layer, or it does not adapt it.
        AdapterExistsError: there is something already.
        AdapterError: it cannot be written.
    """
    from safetensors.torch import save

    target = Path(folder)
    parts = {layer: _used(part) for layer, part in low_rank(adapter.tuned).items()}
    rank, alpha, state = uniform({n: _used(part) for n, part in split_layers(adapter.base, parts, query).items()})
    state |= {name: tensor for name, tensor in adapter.tuned.state_dict().items() if name.startswith(HEAD)}
    layout = layout_of(adapter.header)
    tensors = {layout.in_file(name): tensor.contiguous() for name, tensor in state.items()}
    config = config_of(_described(adapter, rank, alpha, tensors))
    contents = {
        MODEL: save(tensors, metadata={"format": "pt"}),
        CONFIG: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
    }
    check_free(target, force=force)
    try:
        write_in_place_of(Path(os.path.realpath(target)), contents, replace=force)
    except OSError as error:
        raise AdapterError(f"The adapter could not be written to {target}: {error.strerror or error}.") from error
    return target


def _used(part: Factors) -> Factors:
    """The same change without the ranks that add nothing to it."""
    used = part.a.any(dim=1) & part.b.any(dim=0)
    if not bool(used.any()):
        used[0] = True  # a change of zero still has a rank
    return Factors(part.a[used], part.b[:, used], part.scaling)


def _described(adapter: Adapter, rank: int, alpha: float, tensors: dict[str, Tensor]) -> Header:
    """A header from which the layout makes PEFT's config; it is not written."""
    entries = tuple(TensorEntry(name, "F32", tuple(tensor.shape)) for name, tensor in sorted(tensors.items()))
    settings = {**adapter.header.settings, "rank": rank, "alpha": alpha}
    return replace(adapter.header, settings=settings, scaling=alpha / rank, tensors=entries)
