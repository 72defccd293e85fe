"""The doctor: looks into a base, or an adapter on its base, for what goes wrong in silence.

Each check says what was looked at, the number, and what to do. They use fixed sentences and a handful of forward
passes. Vectors are compared by the length of their difference as a share of their own length, so that the numbers
mean the same with a trained head and without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from lora_clf.adapters.canary import SENTENCES, TOLERANCE
from lora_clf.adapters.coverage import adapter_coverage, base_coverage
from lora_clf.adapters.finding import Finding, guarded
from lora_clf.base.base import position_limit
from lora_clf.base.digest import backbone_digest
from lora_clf.base.pooling import right_padded
from lora_clf.errors import UsageError
from lora_clf.inference.attention import choose_attention
from lora_clf.inference.batches import collate
from lora_clf.inference.precision import autocast, has_native_bf16

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.base.base import Base
    from lora_clf.base.tokenizer import Tokens
    from lora_clf.base.view import View

ROUGH: Final = 0.1  # how far vectors in bf16 may be from those in fp32
UNKNOWN: Final = 0.05  # of the tokens of plain English may be unknown
SURE: Final = 0.1  # a lead in probability by which a label is no toss-up
_SHORT = ("plain", "promotion", "short", "empty", "special")
_AGAIN = "Fetch the base again, or give the right folder with --base."


@dataclass(frozen=True)
class Patient:
    """What is examined: a classifier on a base, and how its texts are cut."""

    base: Base
    view: View
    max_length: int
    side: Any
    adapter: Adapter | None = None

    def encode(self, names: tuple[str, ...]) -> Tokens:
        """The ids of some of the fixed sentences."""
        return self.base.tokenizer.encode([SENTENCES[name] for name in names], self.max_length, self.side)

    def vectors(self, ids: Tensor, mask: Tensor, precision: str = "fp32") -> Tensor:
        """What the head gets: (B, T), (B, T) -> (B, D)."""
        ids, mask = right_padded(ids.to(self.view.device), mask.to(self.view.device))
        choose_attention(self.view, ids.shape[1], training=False)
        with torch.inference_mode(), autocast(precision, self.view.device):
            hidden = self.view.hidden(ids, mask)
            with torch.autocast(hidden.device.type, enabled=False):
                return self.view.pooled(hidden.float(), mask)

    def alone(self, tokens: Tokens, precision: str = "fp32") -> Tensor:
        """The vectors of texts one by one: (N, D)."""
        rows = [torch.from_numpy(row.astype(np.int64))[None] for row in tokens.ids]
        return torch.cat([self.vectors(row, torch.ones_like(row), precision) for row in rows])


def examine_base(base: Base, *, prompt: str | None = None, tokens: int | None = None) -> list[Finding]:
    """Look into a base; ``prompt`` and ``tokens`` are about the continuation by a decoder.

    Raises:
        UsageError: a prompt for a base that is no decoder, or a number of tokens that is out of range.
    """
    if not base.architecture.causal and (prompt is not None or tokens is not None):
        raise UsageError(f"--prompt and --tokens: the base {base.name} is no decoder, so it continues nothing.")
    patient = Patient(base, base.view(2), base.max_length, "right")
    found = [
        guarded("weights", "the numbers of the base, and its digest", lambda: weights(base), _AGAIN),
        guarded("targets", "which layers the named targets match in each block", lambda: base_coverage(base), _AGAIN),
        *_common(patient),
    ]
    if base.architecture.causal:
        found.append(guarded("continuation", "what it writes", lambda: continued(base, prompt, tokens), _AGAIN))
    return found


def examine_adapter(adapter: Adapter) -> list[Finding]:
    """Look into an adapter and the base that it is on."""
    header = adapter.header
    patient = Patient(adapter.base, adapter.tuned.view, header.max_length, header.truncation, adapter)
    return [
        guarded(
            "weights",
            "the numbers of the base, and its digest",
            lambda: weights(adapter.base, header.base_digest),
            _AGAIN,
        ),
        guarded(
            "canaries", "the logits of seven fixed sentences", lambda: canaries(adapter), "Do not use this adapter."
        ),
        guarded(
            "targets", "what was trained, and whether it differs from before", lambda: adapter_coverage(adapter), ""
        ),
        *_common(patient),
    ]


def _common(patient: Patient) -> list[Finding]:
    checks: tuple[tuple[str, str, Callable[[Patient], Finding]], ...] = (
        ("padding", "short texts alone, in a batch, and padded on the other side", padding),
        ("special tokens", "a text that spells every special token", special_tokens),
        ("truncation", "a text of 300 sentences", truncation),
        ("tokenizer", "ids against the rows of the embeddings, and the digest", tokenizer),
        ("determinism", "the same batch twice", determinism),
        ("precision", "short texts in bf16 against fp32", precision),
    )

    def run(name: str, checked: str, check: Callable[[Patient], Finding]) -> Finding:
        return guarded(name, checked, lambda: check(patient), _AGAIN)

    return [run(*each) for each in checks]


def weights(base: Base, wanted: str | None = None) -> Finding:
    """Whether all numbers are finite, none of the matrices is blank, and the digest still holds."""
    named = list(base.backbone.named_parameters())
    broken = [name for name, p in named if not bool(torch.isfinite(p).all())]
    # In the blocks: embeddings of a kind that a base does not use are zero in many.
    blocks = f"{base.architecture.blocks}."
    blank = [name for name, p in named if p.ndim >= 2 and name.startswith(blocks) and not bool(p.any())]
    digest = backbone_digest(named, base.config.to_dict())
    problems = [f"{len(broken)} tensors hold NaN or infinity, first {broken[0]}"] if broken else []
    problems += [f"{len(blank)} matrices of the blocks are all zero, first {blank[0]}"] if blank else []
    problems += ["the weights changed after they were loaded"] if digest != base.digest else []
    problems += [f"the adapter wants {wanted[:12]}"] if wanted not in (None, digest) else []
    return Finding(
        "weights",
        not problems,
        f"the {base.total_parameters:,} numbers of {base.name}, and its digest",
        "; ".join([f"digest {digest[:12]}", *(problems or ["all finite"])]),
        _AGAIN if problems else "",
        {"digest": digest, "parameters": base.total_parameters, "not_finite": len(broken), "blank": len(blank)},
    )


def canaries(adapter: Adapter) -> Finding:
    """Whether the adapter computes what it did when it was saved."""
    drift = adapter.verify()
    return Finding(
        "canaries",
        True,
        f"the logits of {len(SENTENCES)} fixed sentences against those in the file",
        f"they differ by {drift:.1g} at most ({TOLERANCE:g} allowed)",
        numbers={"drift": drift, "allowed": TOLERANCE},
    )


def padding(patient: Patient) -> Finding:
    """Whether a text's vector is the same alone, beside longer ones, and padded on the left."""
    tokens = patient.encode(_SHORT)
    alone = patient.alone(tokens)
    batch = collate(tokens.ids, np.arange(len(tokens)))
    # The same rows with the padding in front.
    left_ids, left_mask = batch.input_ids.clone(), batch.attention_mask.clone()
    for row, length in enumerate(tokens.lengths.tolist()):
        left_ids[row], left_mask[row] = left_ids[row].roll(-length), left_mask[row].roll(-length)
    together = share(patient.vectors(batch.input_ids, batch.attention_mask), alone)
    left = share(patient.vectors(left_ids, left_mask), alone)
    worst = max(together, left)
    return Finding(
        "padding",
        worst <= TOLERANCE,
        f"{len(tokens)} texts alone, in one batch of {batch.input_ids.shape[1]} tokens, and padded on the left",
        f"their vectors differ by {together:.1g} in the batch, {left:.1g} padded left ({TOLERANCE:g} allowed)",
        ""
        if worst <= TOLERANCE
        else "An answer depends on the texts beside it: predict one text at a time, and "
        "check the attention mask of this architecture.",
        {"in_a_batch": together, "padded_left": left, "allowed": TOLERANCE},
    )


def special_tokens(patient: Patient) -> Finding:
    """Whether what a person types can become a special token."""
    tokenizer = patient.base.tokenizer
    special = tokenizer.special
    before, behind = (len(part) for part in tokenizer.around)
    texts = [f"a {name} b{name}c {name.upper()} {name.lower()}" for name in special] + [SENTENCES["special"]]
    rows = tokenizer.encode(texts, 1 << 16).ids
    ids = {int(id) for row in rows for id in row[before : len(row) - behind]}
    became = sorted(name for name, id in special.items() if id in ids)
    return Finding(
        "special tokens",
        not became,
        f"texts that spell each of {len(special)} special tokens",
        f"{len(became)} became one{': ' + ', '.join(became[:5]) if became else ''}",
        "Whoever writes to you can end or pad a text at will: use another tokenizer file for this base."
        if became
        else "",
        {"special": len(special), "became": len(became)},
    )


def truncation(patient: Patient) -> Finding:
    """Whether a long text is cut to the length, on the right side, and runs through."""
    tokenizer, length = patient.base.tokenizer, patient.max_length
    limit = position_limit(patient.base.config)
    whole = tokenizer.encode([SENTENCES["long"]], 1 << 16).ids[0].tolist()
    cut = tokenizer.encode([SENTENCES["long"], SENTENCES["short"]], length, patient.side)
    kept = cut.ids[0].tolist()
    before, behind = (len(part) for part in tokenizer.around)
    body, rest = kept[before : len(kept) - behind], whole[before : len(whole) - behind]
    if patient.base.prompt is not None:  # a template stays on the other side, and the token at the cut may be a part
        sure = max(0, len(body) - len(tokenizer.encode([""], length).ids[0]) - 1)
        body = body[:sure] if patient.side == "right" else body[len(body) - sure :]
    same = body == (rest[: len(body)] if patient.side == "right" else rest[len(rest) - len(body) :])
    too_long = len(whole) > length
    problems = [f"{len(kept)} tokens are left where {length} are allowed"] if len(kept) > length else []
    problems += [f"the base has {limit} positions"] if limit is not None and length > limit else []
    problems += ["it is not said that the text was cut"] if too_long and not cut.truncated[0] else []
    problems += ["a short text is said to be cut"] if bool(cut.truncated[1]) else []
    problems += [f"what is left is not its {'start' if patient.side == 'right' else 'end'}"] if not same else []
    if not problems and not bool(torch.isfinite(patient.alone(patient.encode(("long",)))).all()):
        problems.append("its vector is not finite")
    return Finding(
        "truncation",
        not problems,
        f"a text of {len(whole):,} tokens, cut on the {patient.side} to at most {length:,}",
        "; ".join(problems) or f"{len(kept):,} tokens are left, and the answer says so",
        "Give a --max-length that the base has positions for, and its own tokenizer files." if problems else "",
        {"tokens": len(whole), "kept": len(kept), "max_length": length, "positions": limit},
    )


def tokenizer(patient: Patient) -> Finding:
    """Whether the tokenizer is one for this base, and the adapter's own."""
    base, own = patient.base, patient.base.tokenizer
    rows = int(base.backbone.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    highest = own.highest_id
    ids = np.concatenate(own.encode([SENTENCES[name] for name in ("plain", "promotion", "long")], 4096).ids)
    unknown = float(np.mean(ids == own.unknown_id)) if own.unknown_id is not None else 0.0
    wanted = patient.adapter.header.tokenizer_digest if patient.adapter is not None else own.digest
    problems = [f"ids go up to {highest:,}, the base has embeddings for {rows:,}"] if highest >= rows else []
    problems += [f"{100 * unknown:.0f} % of plain English is unknown to it"] if unknown > UNKNOWN else []
    problems += [f"its digest is {own.digest[:12]}, the adapter wants {wanted[:12]}"] if wanted != own.digest else []
    fine = f"ids go up to {highest:,} of {rows:,}, {100 * unknown:.1f} % of plain English is unknown"
    return Finding(
        "tokenizer",
        not problems,
        f"ids against the {rows:,} rows of the embeddings; digest {own.digest[:12]}",
        "; ".join(problems) or fine,
        "Restore the tokenizer files that came with this base." if problems else "",
        {"highest_id": highest, "rows": rows, "unknown": unknown, "digest": own.digest},
    )


def determinism(patient: Patient) -> Finding:
    """Whether the same batch gives the same bits."""
    tokens = patient.encode(_SHORT)
    batch = collate(tokens.ids, np.arange(len(tokens)))
    first, second = (patient.vectors(batch.input_ids, batch.attention_mask) for _ in range(2))
    differ = int((first != second).sum())  # NaN is never equal to itself
    return Finding(
        "determinism",
        differ == 0,
        f"a batch of {len(tokens)} texts, computed twice",
        f"{differ:,} of {first.numel():,} numbers differ",
        "Something draws random numbers, or a kernel adds in another order each time: use --device cpu to tell."
        if differ
        else "",
        {"differ": differ, "numbers": first.numel()},
    )


def precision(patient: Patient) -> Finding:
    """How far bf16 is from fp32, and whether it changes a label."""
    checked = f"{len(_SHORT)} short texts in bf16 against fp32"
    if not has_native_bf16(patient.view.device):
        found = f"not computed: this {patient.view.device.type} has no native bf16, so fp32 is used everywhere"
        return Finding("precision", None, checked, found)
    tokens = patient.encode(_SHORT)
    exact, rough = patient.alone(tokens), patient.alone(tokens, "bf16")
    drift = share(rough, exact)
    flips, labelled = 0, False
    if patient.adapter is not None and patient.adapter.header.answering.softmax:
        answers, labelled = patient.adapter.answers, True
        with torch.inference_mode():
            both = [patient.view.head(vectors).float().cpu().numpy() for vectors in (exact, rough)]
        pairs = zip(*(answers(logits, tokens.truncated) for logits in both), strict=True)
        flips = sum(one.label != other.label and one.probability >= 0.5 + SURE / 2 for one, other in pairs)
    fine = drift <= ROUGH and not flips
    labels = f", {flips} labels that were no toss-up change" if labelled else ""
    return Finding(
        "precision",
        fine,
        checked,
        f"vectors differ by {drift:.2g} ({ROUGH:g} allowed){labels}",
        "" if fine else "Train and predict with --precision fp32.",
        {"drift": drift, "allowed": ROUGH, "flips": flips},
    )


def continued(base: Base, prompt: str | None, tokens: int | None) -> Finding:
    """Whether a decoder goes on with a prompt as a language model does."""
    from lora_clf.base.continuation import KNOWN, PROMPT, TOKENS, continuation

    asked = prompt if prompt is not None else PROMPT
    measured = prompt if prompt is not None else SENTENCES["plain"]
    checked = f"what it writes behind {asked!r}, the most probable token each time"
    made = continuation(base, asked, TOKENS if tokens is None else tokens, measured)
    if made is None:
        return Finding("continuation", None, checked, "not computed: the folder holds no head of a language model")
    known = KNOWN.get(base.name) if asked == PROMPT else None
    problems = (
        [f"transformers' own model gives other logits, by {made.drift:.2g}"] if not made.drift <= TOLERANCE else []
    )
    problems += ["it is more surprised than by chance"] if not made.nats < made.uniform else []
    same = known is None or known.startswith(made.text) or made.text.startswith(known)
    problems += [f"it is known to go on with {known!r}"] if not same else []
    found = f"{made.text!r}; {made.nats:.2f} nats a token of {measured!r} ({made.uniform:.2f} by chance)"
    return Finding(
        "continuation",
        not problems,
        checked,
        "; ".join([found, *problems]),
        f"These are not the weights of a language model as it was trained. {_AGAIN}" if problems else "",
        {"prompt": asked, "text": made.text, "nats": made.nats, "uniform": made.uniform, "drift": made.drift},
    )


def share(now: Tensor, expected: Tensor) -> float:
    """The largest length of a difference as a share of the expected vector's: (N, D), (N, D) -> one number."""
    lengths = (now - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)
    return float(lengths.max()) if bool(torch.isfinite(lengths).all()) else float("inf")
