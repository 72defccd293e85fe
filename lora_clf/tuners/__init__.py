"""How a base is adapted: one strategy, one file.

A strategy is a frozen dataclass, a `Tuner`, whose fields are its hyperparameters. It is found by walking this
folder: a new file that defines one is a new strategy, with its flags, its row in every comparison and its contract
tests.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from lora_clf.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_clf.tuners.base import Tuner


@cache
def strategies() -> Mapping[str, type[Tuner]]:
    """Every strategy by its command-line name, in the order of `Tuner.order`, then by name."""
    from lora_clf.tuners.base import Tuner

    found: dict[str, type[Tuner]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Tuner) and member.__module__ == module.__name__ and not inspect.isabstract(member):
                if member.name in found:
                    raise RuntimeError(f"Two strategies are called {member.name!r}: {found[member.name]}, {member}")
                found[member.name] = member
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: (item[1].order, item[0]))))


def create(name: str, **settings: object) -> Tuner:
    """The strategy ``name`` with ``settings`` in place of its defaults.

    Raises:
        UsageError: no such strategy; or a setting that it does not have, with the list of those it has.
    """
    if name not in strategies():
        raise unknown("strategy", name, strategies())
    kind = strategies()[name]
    exists = kind.flags()
    for setting in settings:
        if setting not in exists:
            flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in exists) or "no flags of its own"
            raise UsageError(f"--{setting.replace('_', '-')} does not apply to {name}, which has: {flags}.")
    return kind(**settings)
