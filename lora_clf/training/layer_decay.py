"""Lower learning rates for lower blocks: what lies deeper holds what is more general, and is to move less.

The rate of a parameter is its group's, times ``decay`` to the power of its distance from the head (Howard and Ruder
2018, "discriminative fine-tuning"; Clark et al. 2020): 0 for the head and what stands behind the last block, 1 for the
last block, up to L for the first and L + 1 for what stands before it (embeddings, vectors put before the text).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from lora_clf.base.view import View


def decayed(groups: list[dict[str, Any]], view: View, decay: float) -> list[dict[str, Any]]:
    """Optimizer groups cut by depth, the rate of each as far down as ``decay`` says; 1 leaves them as they are."""
    if decay == 1:
        return groups
    distances = _distances(view)
    below = len(view.blocks) + 1
    found = []
    for group in groups:
        at = [distances.get(id(parameter), below) for parameter in group["params"]]
        for distance in sorted(set(at)):
            parameters = [p for p, place in zip(group["params"], at, strict=True) if place == distance]
            found.append({**group, "params": parameters, "lr": group["lr"] * decay**distance})
    return found


def _distances(view: View) -> dict[int, int]:
    """How far each parameter in or behind the blocks is from the head, by its ``id``."""
    distances: dict[int, int] = {}
    for distance, block in enumerate(reversed(view.blocks), start=1):
        distances |= {id(parameter): distance for parameter in block.parameters()}
    for module in (view.head, view.final_norm, *_behind(view)):
        distances |= {id(parameter): 0 for parameter in module.parameters()} if module is not None else {}
    return distances


def _behind(view: View) -> list[nn.Module]:
    """What else stands between the last block and the head."""
    found = [getattr(view.backbone, "pooler", None)]
    if view.architecture.projection is not None:
        path, _, name = view.architecture.projection.rpartition(".")
        found.append(getattr(view.backbone.get_submodule(path), name))
    return [module for module in found if isinstance(module, nn.Module)]
