"""What each field of an adapter's header must be, and what must hold between them: schema version 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from lora_clf.base.reading import Reading
from lora_clf.errors import UsageError
from lora_clf.tasks import NAMES, kind_of

SCHEMA: Final = 1
_SHOWN: Final = 80  # characters of a wrong value that an error shows
_MOVES: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)  # a terminal's cursor, or the reading order
_LARGEST: Final = 1e30  # so that a number and its products fit into any float; JSON has whole numbers of any length


class _Rule(NamedTuple):
    expected: str
    test: Callable[[Any], bool]


def problems(values: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with the fields of a header, one line each."""
    missing = [name for name in KNOWN if name not in values]
    wrong = [name for name in KNOWN if name in values and not _RULES[name].test(values[name])]
    found = [f"{name} is missing" for name in missing]
    found += [f"{name} is {_short(values[name])}, expected {_RULES[name].expected}" for name in wrong]
    optional = {name for name in values.keys() & OPTIONAL.keys() if OPTIONAL[name].test(values[name])}
    for name in values.keys() & OPTIONAL.keys():
        if name not in optional:
            found.append(f"{name} is {_short(values[name])}, expected {OPTIONAL[name].expected}")
        if name not in names_in(values.get("requires")):
            found.append(f"{name} is there, and requires does not name it")
    if (values.get("head") == "verbalizer") != ("verbalizer" in values):
        found.append("a head that is a verbalizer has the field verbalizer, and no other head has")
    fine = (set(KNOWN) - set(missing) - set(wrong)) | optional
    for names, holds, problem in _BETWEEN:
        if fine.issuperset(names) and not holds(*(values[name] for name in names)):
            found.append(f"{problem}: {', '.join(f'{name} is {_short(values[name])}' for name in names)}")
    return found


def names_in(value: Any) -> set[str]:
    """The names in a list of names; none where it is not one."""
    return set(value) if _names(value) else set()


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _line(value: Any) -> bool:
    return _text(value) and len(value) < 1000 and not _MOVES.search(value)


def _different(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_text, value)) and len(set(value)) == len(value)


def _names(value: Any) -> bool:
    return _different(value) and not any(map(_MOVES.search, value))


def _labels(value: Any) -> bool:
    """Whether these can be labels: those of a table may have line breaks and tabs in them."""
    return _different(value) and len(value) >= 1 and not any(_MOVES.search(re.sub(r"[\n\t]", "", v)) for v in value)


def is_name(value: Any) -> bool:
    """Whether a base or a data set may be called so: a short text on one line that is no path."""
    return _line(value) and not re.match(r"[/\\~.]|[A-Za-z]:[/\\]", value)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def _object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _canaries(value: Any) -> bool:
    return (
        _object(value)
        and set(value) == {"set", "logits"}
        and _count(value["set"])
        and _object(value["logits"])
        and bool(value["logits"])
        and all(isinstance(row, list) and all(map(_number, row)) for row in value["logits"].values())
    )


def _plain(value: Any) -> bool:
    """Whether a task's setting is a number that any float can hold, a short text, or a list of them."""
    if isinstance(value, (list, tuple)):
        return all(not isinstance(part, (list, tuple)) and _plain(part) for part in value)
    return _number(value) or (isinstance(value, str) and len(value) < 1000 and not _MOVES.search(value))


def _verbalizer(value: Any) -> bool:
    return (
        _object(value)
        and set(value) == {"template", "words", "rows"}
        and isinstance(value["template"], str)
        and value["template"].count("{text}") == 1
        and len(value["template"]) < 10_000
        and not _MOVES.search(re.sub(r"[\n\t]", "", value["template"]))
        and _names(value["words"])
        and _sha256(value["rows"])
    )


def _reading(value: Any) -> bool:
    if not _object(value) or not value:
        return False
    try:
        return Reading.restored(value).settings() == dict(value)
    except (UsageError, TypeError):
        return False


def _or_null(rule: _Rule) -> _Rule:
    return _Rule(f"{rule.expected}, or null", lambda value: value is None or rule.test(value))


def _one_of(*names: str) -> _Rule:
    return _Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


_TEXT = _Rule("a text that is not empty, on one line", _line)
_NAME = _Rule("a name, not a path, on one line", is_name)
_POSITIVE = _Rule("a number above 0", lambda value: _number(value) and value > 0)
_COUNT = _Rule("a whole number from 1 on", _count)
_OBJECT = _Rule("an object", _object)
_RULES: Final[Mapping[str, _Rule]] = {
    "schema": _Rule(str(SCHEMA), lambda value: type(value) is int and value == SCHEMA),
    "requires": _Rule("a list of names", _names),
    "strategy": _TEXT,
    "settings": _OBJECT,
    "task": _one_of(*NAMES),
    "labels": _Rule("a list of one or more different names without control characters", _labels),
    "positive_label": _or_null(_TEXT),
    "head": _TEXT,
    "pooling": _one_of("mean", "first", "last", "family"),
    "max_length": _COUNT,
    "truncation": _one_of("right", "left"),
    "base_name": _NAME,
    "base_digest": _Rule("a SHA-256 as 64 hexadecimal digits", _sha256),
    "architecture": _TEXT,
    "tokenizer_digest": _TEXT,
    "scaling": _or_null(_POSITIVE),
    "fan_in_fan_out": _or_null(_Rule("true or false", lambda value: isinstance(value, bool))),
    "threshold": _or_null(_Rule("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)),
    "temperature": _or_null(_POSITIVE),
    "seed": _Rule("a whole number of up to 64 bits", lambda v: type(v) is int and -(2**63) <= v < 2**64),
    "data_name": _or_null(_NAME),
    "data_digest": _or_null(_TEXT),
    "licence": _or_null(_TEXT),
    "training": _OBJECT,
    "metrics": _Rule("an object of objects", lambda v: _object(v) and all(map(_object, v.values()))),
    "versions": _Rule("an object of texts", lambda v: _object(v) and all(map(_line, v.values()))),
    "precision": _TEXT,
    "kernels": _TEXT,
    "instruction_set": _TEXT,
    "threads": _COUNT,
    "canaries": _Rule("an object with set and logits", _canaries),
    "digest": _Rule("a SHA-256 as 64 hexadecimal digits", _sha256),
}
KNOWN: Final = tuple(_RULES)
"""The fields of schema version 1; each is there in every file."""

OPTIONAL: Final[Mapping[str, _Rule]] = {
    "task_settings": _Rule(
        "an object of numbers, short texts and lists of them, not empty",
        lambda value: _object(value) and bool(value) and all(map(_plain, value.values())),
    ),
    "verbalizer": _Rule("an object with template (a text around one {text}), words and rows (a SHA-256)", _verbalizer),
    "reading": _Rule("an object as `long`, `segment`, `overlap` and so on, of values that fit together", _reading),
}
"""Fields that are there only in files which need them, where `requires` names them: who does not know them refuses."""

# What must hold between fields, looked at where each of them is fine by itself.
_BETWEEN: Final[tuple[tuple[tuple[str, ...], Callable[..., bool], str], ...]] = (
    (
        ("task", "labels"),
        lambda task, labels: kind_of(task).fits(task, labels),
        "a task is binary with two labels, multiclass and ordinal with three or more, multilabel with two or more, "
        "regression with one",
    ),
    (
        ("positive_label", "labels", "task"),
        lambda positive, labels, task: positive is None or (positive in labels and task == "binary"),
        "only a binary task has a positive label, and it is one of the labels",
    ),
    (
        ("threshold", "positive_label"),
        lambda threshold, positive: threshold is None or positive is not None,
        "a threshold needs a positive label",
    ),
    (
        ("head", "pooling"),
        lambda head, pooling: (head in ("free", "verbalizer")) == (pooling != "family"),
        "the head is free or a verbalizer, or the pooling is family",
    ),
    (
        ("scaling", "fan_in_fan_out"),
        lambda scaling, transposed: (scaling is None) == (transposed is None),
        "a strategy has scaling and fan_in_fan_out, or neither",
    ),
    (
        ("scaling", "settings"),
        lambda scaling, settings: scaling is None or (_count(settings.get("rank")) and _number(settings.get("alpha"))),
        "settings of a low-rank adapter do not fit, they have a whole number as rank and a number as alpha",
    ),
    (
        ("canaries", "labels", "task"),
        lambda canaries, labels, task: all(
            len(row) == kind_of(task).outputs_for(labels) for row in canaries["logits"].values()
        ),
        "each canary has one logit an output: one a label, one fewer in an ordinal task",
    ),
    (
        ("reading", "labels", "task"),
        lambda reading, labels, task: (
            "prior" not in reading or len(reading["prior"]) == kind_of(task).outputs_for(labels)
        ),
        "the prior of a reading has one share a label",
    ),
    (
        ("reading", "task"),
        lambda reading, task: kind_of(task).softmax or reading.get("aggregate") not in ("vote", "score"),
        "a reading joins chunks by vote or score only where the task is binary or multiclass",
    ),
)


def _short(value: Any) -> str:
    shown = repr(list(value) if isinstance(value, tuple) else value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
