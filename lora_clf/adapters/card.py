"""The model card of an adapter, README.md, for people and for the Hub: a function of its header."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from lora_clf.adapters.card_task import gives, hub_metrics, last_lines, measures, remarks
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import hub_name, in_peft_layout
from lora_clf.base.architecture import ARCHITECTURES
from lora_clf.base.catalogue import CATALOGUE

FOLDER: Final = "path/to/this/folder"
"""What stands in the card's commands for the place of the adapter, which no file of ours knows."""

_PAIR: Final = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")

# The Hub's names of licences that data sets and models come under most; anything else is "other" there.
_LICENCES: Final = frozenset({
    "apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "odc-by", "odbl", "pddl", "bsd-3-clause", "gpl-3.0", "unknown",
})  # fmt: skip


def card(header: Header) -> str:
    """The text of README.md."""
    parts = [_metadata(header), _introduction(header), _measures(header), _use(header), _making(header)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(header: Header) -> str:
    repository, _ = hub_name(header.base_name)
    lines = ["---"]
    # The Hub takes a repository for a base; a folder's own name would be one that does not exist.
    if header.base_name in CATALOGUE or "/" in repository:
        lines += ["base_model:", f"- {_quoted(repository)}", "base_model_relation: adapter"]
    licence = re.sub(r"[\s_]+", "-", (header.licence or "unknown").strip().lower())
    if licence in _LICENCES:
        lines += [f"license: {licence}"]
    else:
        lines += ["license: other", f"license_name: {_quoted(licence)}"]
    tags = ["lora-clf", header.strategy, *(["lora"] if header.low_rank and header.strategy != "lora" else [])]
    lines += [
        f"library_name: {'peft' if in_peft_layout(header) else 'lora-clf'}",
        "pipeline_tag: text-classification",
        "metrics:",
        *(f"- {kind}" for kind in hub_metrics(header)),
        "tags:",
        *(f"- {tag}" for tag in tags),
        *_results(header),
        "---",
    ]
    return "\n".join(lines)


def _results(header: Header) -> list[str]:
    """The scores as the Hub's ``model-index``: an entry a part, test first; nothing where none was measured."""
    kinds = {each.key: each.metric for each in measures(header) if each.metric}
    titles = {each.key: each.title for each in measures(header)}
    if header.positive_label is not None:
        titles |= {name: f"{name} of {header.positive_label}" for name in ("precision", "recall")}
    data = header.data_name or "unknown"
    lines: list[str] = []
    for part in ("test", "validation"):
        scores = {name: header.metrics.get(part, {}).get(name) for name in kinds}
        found = {name: value for name, value in scores.items() if _is_number(value)}
        if found:
            lines += [
                "  - task:",
                "      type: text-classification",
                "      name: Text classification",
                "    dataset:",
                f"      name: {_quoted(data)}",
                f"      type: {_quoted(re.sub(r'[^a-z0-9]+', '-', data.lower()).strip('-') or 'unknown')}",
                f"      split: {part}",
                "    metrics:",
            ]
            for name, value in found.items():
                lines += [f"    - type: {kinds[name]}", f"      value: {value}", f"      name: {_quoted(titles[name])}"]
    if not lines:
        return []
    return ["model-index:", f"- name: {_quoted(f'{data} {header.strategy}')}", "  results:", *lines]


def _introduction(header: Header) -> str:
    labels = ", ".join(_code(label) for label in header.labels)
    lines = [
        f"# A {header.task} text classifier on {header.base_name}",
        "",
        f"{gives(header, labels)}. It is an adapter: {header.parameters:,} numbers that "
        f"go with the base {_code(header.base_name)}, trained with the strategy {_code(header.strategy)} of "
        "lora_clf.",
    ]
    if header.positive_label is not None:
        rule = f" from a probability of {header.threshold:g} on" if header.threshold is not None else ""
        lines += ["", f"The positive label is {_code(header.positive_label)}{rule and ', predicted' + rule}."]
    for remark in remarks(header):
        lines += ["", _cell(remark)]
    return "\n".join(lines)


def _measures(header: Header) -> str:
    parts = [part for part in ("validation", "test") if part in header.metrics]
    rows = [
        f"| {each.title} | " + " | ".join(_number(header.metrics[part].get(each.key)) for part in parts) + " |"
        for each in measures(header)
        if any(isinstance(header.metrics[part].get(each.key), (int, float)) for part in parts)
    ]
    if not rows:
        return ""
    sizes = [header.metrics[part].get("n") for part in parts]
    titles = [f"{part} ({n} texts)" if n else part for part, n in zip(parts, sizes, strict=True)]
    top = [f"| | {' | '.join(titles)} |", "|---" * (len(parts) + 1) + "|"]
    return "\n".join(["## Measured", "", *top, *rows])


def _use(header: Header) -> str:
    base = "" if header.base_name == "minilm" else header.base_name
    lines = [
        "## Use",
        "",
        "```sh",
        f'lora-clf predict {FOLDER} "Your text"',
        "```",
        "",
        "```python",
        "from lora_clf import load_adapter, load_base",
        "",
        f"base = load_base({_quoted(base)})" if base else "base = load_base()",
        f'classifier = load_adapter("{FOLDER}", base)',
        'print(classifier.predict(["Your text"]))',
        "```",
    ]
    if header.reading:
        lines += ["", f"Texts are read by lora_clf alone: {header.how}. `--explain` shows what each chunk says."]
    elif in_peft_layout(header) and header.verbalizer is None:
        lines += ["", _with_peft(header)]
        left = [name for name in ("temperature", "threshold") if getattr(header, name) is not None]
        if left:
            lines += [
                "",
                f"Those lines print the label of the largest logit: the {' and the '.join(left)} of this adapter "
                "(below) are applied by lora_clf, not by peft.",
            ]
    return "\n".join(lines)


def _with_peft(header: Header) -> str:
    """The lines that run the adapter with peft and transformers alone; a test executes them."""
    repository, revision = hub_name(header.base_name)
    at = f", revision={_quoted(revision)}" if revision else ""
    tokens = (
        f"tokens = AutoTokenizer.from_pretrained(BASE{at})(\n"
        f'    "Your text", truncation=True, max_length={header.max_length}, return_tensors="pt"\n)'
    )
    labels = f"[{', '.join(map(_quoted, header.labels))}]"
    answer = last_lines(header)
    outputs = "len(LABELS)" if header.outputs == len(header.labels) else "len(LABELS) - 1"
    if header.pooling == "family":
        code = f"""\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BASE, FOLDER, LABELS = {_quoted(repository)}, "{FOLDER}", {labels}
model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels={outputs}{at})
model = PeftModel.from_pretrained(model, FOLDER).eval()
{tokens}
logits = model(**tokens).logits[0]
{answer}"""
        note = "Without lora_clf, one text at a time:"
    else:
        architecture = ARCHITECTURES.get(header.architecture)
        part = f".{architecture.part}" if architecture is not None and architecture.part else ""
        vector = {"mean": "states.mean(0)", "first": "states[0]", "last": "states[-1]"}[header.pooling]
        # Where tokens see a window only, the first is told to see all (`Architecture.global_token`).
        whole = architecture is not None and architecture.global_token
        told = ', global_attention_mask=tokens["attention_mask"].cumsum(1).eq(1).long()' if whole else ""
        code = f"""\
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

BASE, FOLDER, LABELS = {_quoted(repository)}, "{FOLDER}", {labels}
body = PeftModel.from_pretrained(AutoModel.from_pretrained(BASE{at}), FOLDER).eval().get_base_model(){part}
head = load_file(FOLDER + "/adapter_model.safetensors")
{tokens}
states = body(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]{told}).last_hidden_state[0]
logits = head["head.linear.weight"] @ {vector} + head["head.linear.bias"]
{answer}"""
        note = "Without lora_clf, one text at a time (peft reads the body; the head is one linear layer):"
    return f"{note}\n\n```python\n{code}\n```"


def _making(header: Header) -> str:
    recipe = dict(header.training)
    found = {name: recipe.pop(name) for name in ("temperature", "threshold") if isinstance(recipe.get(name), dict)}
    rows: dict[str, Any] = {
        "data": header.data_name,
        "data digest": header.data_digest,
        "licence of the data": header.licence,
        "settings": _settings(header.settings),
        "training": _settings(recipe),
        "temperature": _temperature(header, found.get("temperature", {})),
        "threshold": _threshold(header, found.get("threshold", {})),
        "seed": header.seed,
        "head": f"{header.head}, pooling {header.pooling}",
        **_verbalizer(header.verbalizer or {}),
        "longest text": _longest(header),
        "base digest": header.base_digest,
        "tokenizer digest": header.tokenizer_digest,
        "adapter digest": header.digest,
        "made with": ", ".join(f"{name} {version}" for name, version in sorted(header.versions.items())),
        "computed in": f"{header.precision}, {header.kernels}, {header.instruction_set}",
        "threads": header.threads,
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["## How it was made", "", "| | |", "|---|---|", *lines])


def _verbalizer(found: Mapping[str, Any]) -> dict[str, Any]:
    """The template and the words of a head that is a verbalizer."""
    return {} if not found else {"template": repr(found["template"]), "words": ", ".join(map(repr, found["words"]))}


def _longest(header: Header) -> str:
    """How much of a text is read."""
    if header.how.whole:
        return f"any; {header.how}; {header.max_length} tokens a chunk"
    cleaned = f"; {header.how}" if header.reading else ""
    return f"{header.max_length} tokens, cut on the {header.truncation}{cleaned}"


def _temperature(header: Header, found: Mapping[str, Any]) -> str:
    """What logits are divided by, and what that is good for."""
    if header.temperature is None:
        return ""
    text = f"{header.temperature:g}"
    if found.get("rows") is None:
        return text
    before, after = _number(found.get("calibration_error_before")), _number(found.get("calibration_error_after"))
    return f"{text}, fitted on {found['rows']} validation rows: calibration error there {before} before, {after} after"


def _threshold(header: Header, found: Mapping[str, Any]) -> str:
    """From which probability on the positive label is answered, how that was chosen, and on how many rows."""
    if header.threshold is None:
        return ""
    text = f"{header.threshold:g}"
    if found.get("rows") is None:
        return text
    rules = {"given": "as given", "precision": f"the lowest with a precision of {found.get('target')}"}
    rule = rules.get(str(found.get("rule")), f"the best {found.get('rule')}")
    return (
        f"{text}, {rule} on {found['rows']} validation rows, {found.get('positives')} of them {header.positive_label}: "
        f"precision {_number(found.get('precision'))} (95 % lower bound {_number(found.get('precision_bound'))}), "
        f"recall {_number(found.get('recall'))}"
    )


def _settings(values: Any) -> str:
    return ", ".join(f"{name} {values[name]}" for name in sorted(values))


def _number(value: Any) -> str:
    return f"{value:.4f}" if _is_number(value) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _quoted(text: str) -> str:
    """A string that YAML and Python both read as ``text``: pure ASCII, a pair of surrogates as one character."""
    return _PAIR.sub(lambda pair: f"\\U{ord(json.loads(f'{chr(34)}{pair[0]}{chr(34)}')):08x}", json.dumps(text))


def _code(text: str) -> str:
    plain = re.sub(r"[`|\s]+", " ", text)
    return f"`{plain}`"


def _cell(value: Any) -> str:
    return re.sub(r"[|\s]+", " ", str(value))
