"""How a comparison was made, in lines for its report: command, digests, settings, versions, machine and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_clf.comparison.plan import Plan


def made_lines(plan: Plan, facts: Mapping[str, Any], used: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The lines, ``used`` being what each contender trained with.

    Args:
        plan: what was to be done.
        facts: those of the comparison.
        used: by label the strategy's settings and its learning rate.
    """
    from lora_clf import __version__
    from lora_clf.training.settings import TrainSettings

    base, environment = facts["base"], facts["environment"]
    settings = TrainSettings(**plan.training).as_dict()
    del settings["seed"]
    digests = [f"{split['digest'][:16]}" for split in facts["data"]["splits"]]
    lines = [
        f"command: {facts['command']}" if facts["command"] else "",
        f"base: {base['name']}, {base['parameters']:,} parameters, pooling {base['pooling']}, "
        f"digest {base['digest'][:16]}, tokenizer {base['tokenizer_digest'][:16]}",
        f"data digest{'s' if len(digests) > 1 else ''}: {', '.join(digests)}",
        f"training seeds: {', '.join(str(seed) for seed in plan.seeds)}; split seed"
        + ("s: the same" if plan.resplit else f": {plan.split_seed}"),
        f"training: {_pairs(settings)}",
        f"texts: {_pairs(plan.reading)}" if plan.reading else "",
        *(f"{label}: {_pairs(values)}" for label, values in used.items()),
        f"versions: lora-clf {__version__}, {_pairs(environment['versions'])}",
        f"machine: {_pairs(environment['machine'])}",
        *_code(facts.get("provenance")),
    ]
    return [line for line in lines if line]


def used_by(runs: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The settings that all runs of one contender have in common; what tuning chose for some in another way says so."""
    first = next(iter(runs), {})
    return {
        name: value if all(run.get(name) == value for run in runs) else "as tuned, not the same in all runs"
        for name, value in first.items()
    }


def _code(facts: Mapping[str, Any] | None) -> list[str]:
    """Which code ran, in which precision and how many runs at a time."""
    if not facts:
        return []
    commit = facts["git_commit"]
    changed = ", with changes since" if facts["changed_since_commit"] else ""
    code = f"code: digest {facts['code_digest'][:16]}" + (f", git commit {commit[:12]}{changed}" if commit else "")
    jobs = f"; {facts['jobs']} runs at a time, so seconds are those of a shared machine" if facts["jobs"] > 1 else ""
    return [code, f"precision: {facts['precision']}{jobs}"]


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in values.items())


def _setting(value: object) -> str:
    return "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
