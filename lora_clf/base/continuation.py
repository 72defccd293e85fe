"""What a decoder base writes behind a prompt: the quickest way to see that it was loaded as it should be.

The weights of a base may be transposed, permuted or those of another model and still fit by shape; its classifiers
then learn from noise, and nothing says so. A language model that continues a sentence in English does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from lora_clf.base.base import position_limit
from lora_clf.base.weights import read_language_model
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

PROMPT: Final = "Every effort moves you"
TOKENS: Final = 15
FEWEST, MOST = 10, 25

KNOWN: Final[Mapping[str, str]] = {
    "gpt2": " forward.\n\nThe first step is to understand the importance of your work",
}
"""How bases of the catalogue continue ``PROMPT``."""


@dataclass(frozen=True)
class Continuation:
    """What a decoder makes of a prompt.

    Attributes:
        prompt: the prompt.
        text: the most probable token after each token: what it goes on with.
        nats: how surprised it is, a token of the measured text: the mean of -ln p.
        uniform: the same for a model that knows nothing: ln of the size of the vocabulary.
        drift: how far the logits of the base's own backbone are from those of transformers' language model, as a
            share of max(1, |logit|).
    """

    prompt: str
    text: str
    nats: float
    uniform: float
    drift: float


def continuation(
    base: Base, prompt: str = PROMPT, tokens: int = TOKENS, measured: str | None = None
) -> Continuation | None:
    """The greedy continuation of ``prompt`` by a decoder base; None where its folder holds no language model's head.

    Args:
        base: a decoder.
        prompt: what it goes on from.
        tokens: how many tokens it writes.
        measured: the text whose surprise is measured; default: the prompt.

    Raises:
        UsageError: the base is no decoder, the number of tokens is out of range, or there is too little to go on.
        BaseError: its weights cannot be read.
    """
    if not base.architecture.causal:
        raise UsageError(f"--prompt: the base {base.name} is no decoder ({base.architecture.model_type}).")
    if not FEWEST <= tokens <= MOST:
        raise UsageError(f"--tokens {tokens}: expected {FEWEST} to {MOST}.")
    room = (position_limit(base.config) or base.max_length + tokens) - tokens
    ids, text = _ids(base, prompt, room), _ids(base, measured or prompt, room)
    if min(len(ids), len(text)) < 2:
        raise UsageError(f"--prompt {prompt!r} is too short: expected two tokens at least, as {PROMPT!r}.")
    assert base.folder is not None
    model = read_language_model(base.folder, base.config, base.name)
    if model is None:
        return None
    model = model.to(base.device)
    row = torch.tensor([ids], device=base.device)  # (1, T)
    with torch.inference_mode():
        theirs = model(input_ids=row, use_cache=False).logits  # (1, T, vocabulary)
        hidden = base.backbone(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).last_hidden_state
        ours = model.get_output_embeddings()(hidden)  # type: ignore[operator]
        drift = float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).max())
        for _ in range(tokens):
            last = model(input_ids=row, use_cache=False).logits[:, -1]  # (1, vocabulary)
            row = torch.cat([row, last.argmax(dim=-1, keepdim=True)], dim=1)
        known = torch.tensor([text], device=base.device)
        shares = model(input_ids=known, use_cache=False).logits[:, :-1].log_softmax(dim=-1)  # (1, T - 1, vocabulary)
        nats = float(-shares.gather(2, known[:, 1:, None]).mean())
    written = base.tokenizer.decode(row[0].tolist())
    before = base.tokenizer.decode(ids)
    return Continuation(prompt, written.removeprefix(before), nats, math.log(shares.shape[-1]), drift)


def _ids(base: Base, text: str, room: int) -> list[int]:
    """The ids of a text that goes on: what the base puts behind a text is left out."""
    row = [int(id) for id in base.tokenizer.encode([text], max(room, 1)).ids[0]]
    behind = len(base.tokenizer.around[1])
    return row[: len(row) - behind]
