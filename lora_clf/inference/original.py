"""Whether modules of a view are still the base's own: what a shortcut past them takes for granted.

A strategy may put anything into its view: modules, hooks, a ``forward`` of one object, weights that do not train.
"""

from __future__ import annotations

from torch import Tensor, nn

from lora_clf.base.view import View

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Shortcut:
    """Stands in for the ``forward`` of one module and computes the same: no change of what the module is."""


class Originals:
    """Holds the modules of a view's backbone to those of its base."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._names = {module: name for name, module in view.backbone.named_modules()}
        self._originals = dict(view.original.named_modules())

    def keep(self, module: nn.Module) -> bool:
        """Whether nothing in ``module`` trains or was changed: no part, class, hook, ``forward`` or number of it."""
        return all(self.keep_itself(part) for part in module.modules())

    def keep_itself(self, module: nn.Module) -> bool:
        """The same of the module without its parts."""
        if not self._view.made_with(module) or altered(module):
            return False
        original = self._originals.get(self._names[module])  # BigBird has a dropout more when its view is settled
        mine, theirs = _numbers(module), {} if original is None else _numbers(original)
        return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)


def altered(module: nn.Module) -> bool:
    """Whether a module has a hook or a ``forward`` of its own, neither of which its class shows."""
    held = vars(module)
    own = held.get("forward")
    return not (own is None or isinstance(own, Shortcut)) or any(held.get(hooks) for hooks in _HOOKS)


def holds_weight_and_bias(module: nn.Module) -> bool:
    """Whether these two are all that a layer holds."""
    return _numbers(module).keys() == module._parameters.keys() == {"weight", "bias"} and not module._modules


def _numbers(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, without those of its parts."""
    held = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in held.items() if tensor is not None}


def _same(tensor: Tensor, original: Tensor) -> bool:
    """Whether a tensor does not train and lies in the storage of ``original``."""
    if tensor.requires_grad or (tensor.layout, tensor.dtype) != (original.layout, original.dtype):
        return False
    forms = [(each.shape, each.stride(), each.device) for each in (tensor, original)]
    return forms[0] == forms[1] and tensor.data_ptr() == original.data_ptr()
