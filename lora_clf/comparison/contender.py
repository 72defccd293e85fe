"""Who takes part in a comparison: a strategy with its settings, under the name it has in the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.tuners.base import Tuner

STRATEGIES = ("head-only", "last-block", "full", "lora", "lora-scratch")


@dataclass(frozen=True)
class Contender:
    """A strategy with its settings, under the name it has in the tables.

    Attributes:
        label: unique in a plan; the strategy's name unless it takes part twice.
        strategy: the command-line name.
        settings: the strategy's hyperparameters, all of them.
    """

    label: str
    strategy: str
    settings: dict[str, Any] = field(default_factory=dict)

    def tuner(self) -> Tuner:
        """The strategy itself."""
        from lora_clf.tuners import create

        return create(self.strategy, **self.settings)


def contenders_of(
    strategies: Sequence[str | Tuner] | None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Contender, ...]:
    """The contenders for strategies given by name or as objects; the five of the first table by default.

    Args:
        strategies: names or tuners. A tuner that differs from its defaults is labelled with what differs,
            when its strategy takes part more than once.
        settings: for each strategy name the hyperparameters that are not the default.

    Raises:
        UsageError: an unknown strategy or a setting that it does not have.
    """
    from lora_clf.tuners import create

    given = settings or {}
    tuners = [
        create(item, **given.get(item, {})) if isinstance(item, str) else item
        for item in (STRATEGIES if strategies is None else strategies)
    ]
    unused = sorted(set(given) - {tuner.name for tuner in tuners})
    if unused:
        raise UsageError(
            f"There are settings for {', '.join(unused)}, which this comparison does not hold. "
            f"It holds: {', '.join(tuner.name for tuner in tuners)}."
        )
    often = Counter(tuner.name for tuner in tuners)
    return tuple(
        Contender(tuner.name if often[tuner.name] == 1 else _variant(tuner), tuner.name, tuner.settings())
        for tuner in tuners
    )


def _variant(tuner: Tuner) -> str:
    usual = tuner.flags()
    changed = [f"{name}={value}" for name, value in tuner.settings().items() if value != usual[name]]
    return f"{tuner.name} ({', '.join(changed)})" if changed else tuner.name
