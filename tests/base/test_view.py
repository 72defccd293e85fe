"""A view of a base: what it shares with the base and what it has to itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lora_clf.base.view import share
from tests.bases import ARCHITECTURE_NAMES, VARIANT_NAMES, tiny_base


def deep_copy(module: nn.Module) -> nn.Module:
    """What `share` does, by the standard library alone."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in module.parameters()}
    memo |= {id(buffer): buffer.data for buffer in module.buffers()}
    return copy.deepcopy(module, memo)


def described(module: nn.Module) -> dict[str, Any]:
    """Everything that the modules of a tree hold, tensors by where they lie."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        found[path] = type(part), part.training
        for name, value in part.__dict__.items():
            if name in ("_parameters", "_buffers"):
                value = {key: t if t is None else (type(t), t.data_ptr(), t.requires_grad) for key, t in value.items()}
            elif name == "_modules":
                value = {key: type(child) for key, child in value.items()}
            elif isinstance(value, nn.Module):
                value = type(value)
            elif isinstance(value, torch.Tensor):
                value = value.tolist()
            elif hasattr(value, "to_dict"):
                value = value.to_dict()
            found[f"{path}.{name}"] = type(value), value if type(value).__eq__ is not object.__eq__ else None
    return found


@pytest.mark.parametrize("name", [*ARCHITECTURE_NAMES, *VARIANT_NAMES])
def test_a_shared_tree_is_what_a_deep_copy_is(name: str) -> None:
    backbone = tiny_base(name).backbone
    shared = share(backbone)
    assert described(shared) == described(deep_copy(backbone))
    assert len(list(shared.modules())) == len(list(backbone.modules())) > 20
    # Nothing that can be changed in the one is changed in the other, tensors aside.
    mutable = (dict, list, set, nn.Module)
    theirs = {
        id(value) for part in backbone.modules() for value in part.__dict__.values() if isinstance(value, mutable)
    }
    assert not theirs & {id(v) for part in shared.modules() for v in part.__dict__.values() if isinstance(v, mutable)}
    assert {id(part) for part in backbone.modules()}.isdisjoint(map(id, shared.modules()))
    configs = {id(part.config) for part in shared.modules() if hasattr(part, "config")}
    assert len(configs) == len({id(part.config) for part in backbone.modules() if hasattr(part, "config")})
    assert id(backbone.config) not in configs


class _Own(nn.Linear):
    """A layer that says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Own:
        found = _Own(1, 1)
        found.copied = True
        return found


def test_modules_that_copy_themselves_do_and_tied_weights_stay_tied() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), _Own(3, 3), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    tied.register_buffer("kept", torch.arange(3.0), persistent=False)
    tied.note = {"list": [1]}  # type: ignore[assignment]
    tied[0].register_forward_hook(lambda *_: None)
    found = share(tied)
    assert found[1].copied is True  # type: ignore[index]
    assert found[2].weight is found[0].weight is not tied[0].weight  # type: ignore[index]
    assert found[0].weight.data_ptr() == tied[0].weight.data_ptr()  # type: ignore[index]
    assert list(found.state_dict()) == list(tied.state_dict()) and torch.equal(found.kept, tied.kept)  # type: ignore[arg-type]
    tied.note["list"].append(2)  # type: ignore[operator,index]
    assert found.note == {"list": [1]}  # type: ignore[comparison-overlap]
    assert len(found[0]._forward_hooks) == 1  # type: ignore[index]
    assert found[0]._forward_hooks is not tied[0]._forward_hooks  # type: ignore[index]
