"""Who takes part in a comparison: a strategy with its settings, under the name it has in the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.comparison.plan import Plan
    from lora_clf.tuners.base import Tuner

ALL = "all"
"""In place of names: every strategy that is found and that the base can take."""
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
    strategies: Sequence[str | Tuner] | str | None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Contender, ...]:
    """The contenders for strategies given by name or as objects; the five of the first table by default.

    Args:
        strategies: names or tuners, or ``"all"``. A tuner that differs from its defaults is labelled with what differs,
            when its strategy takes part more than once.
        settings: for each strategy name the hyperparameters that are not the default.

    Raises:
        UsageError: an unknown strategy or a setting that it does not have.
    """
    from lora_clf.tuners import create
    from lora_clf.tuners import strategies as found

    if isinstance(strategies, str):
        strategies = list(found()) if strategies == ALL else [strategies]
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


def takeable(plan: Plan, base: Base, classes: int) -> tuple[Plan, list[dict[str, str]]]:
    """``plan`` without the strategies that cannot adapt ``base``, and for each of those the reason.

    Raises:
        UsageError: none is left.
    """
    refused = {}
    for contender in plan.contenders:
        if (reason := contender.tuner().refusal(base.view(classes, seed=plan.seeds[0]))) is not None:
            refused[contender.label] = f"it cannot adapt this {base.architecture.model_type} base: {reason}"
    kept = tuple(contender for contender in plan.contenders if contender.label not in refused)
    if not kept:
        raise UsageError(f"No strategy can adapt the base {base.name}: {'; '.join(refused.values())}.")
    return replace(plan, contenders=kept), [{"label": name, "reason": reason} for name, reason in refused.items()]


def _variant(tuner: Tuner) -> str:
    usual = tuner.flags()
    changed = [f"{name}={value}" for name, value in tuner.settings().items() if value != usual[name]]
    return f"{tuner.name} ({', '.join(changed)})" if changed else tuner.name
