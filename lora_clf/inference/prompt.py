"""What a decoder says of a text when it is asked, without having been tuned: which answer it finds most likely.

The question is that of the book: "Is the following text 'spam'? Answer with 'yes' or 'no': 'TEXT'". Where no class is
looked for, the answers are the names of the classes. Each answer is scored by the mean log-probability of its tokens
behind the question, as the language model's own head has it; nothing is written and nothing is parsed. Shapes: N texts,
C classes, T tokens, A tokens of an answer, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lora_clf.base.base import position_limit
from lora_clf.base.verbalizer import unprompted
from lora_clf.base.weights import read_language_model
from lora_clf.errors import UsageError
from lora_clf.inference.batches import inference_rows
from lora_clf.inference.precision import autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base

BATCH_TOKENS = 4096
LEAST = 8  # tokens of a text that have to fit between question and answer


def question_of(labels: Sequence[str], positive: str | None) -> tuple[str, str, list[str]]:
    """What stands before and behind a text, and the answer that stands for each class, in the order of ``labels``."""
    if positive is not None and len(labels) == 2:
        before = f"Is the following text '{positive}'? Answer with 'yes' or 'no': '"
        return before, "'\nAnswer:", [" yes" if label == positive else " no" for label in labels]
    names = ", ".join(f"'{label}'" for label in labels)
    return f"Which of {names} fits the following text? '", "'\nAnswer:", [f" {label}" for label in labels]


def ask(
    base: Base, texts: Sequence[str], labels: Sequence[str], positive: str | None, precision: str = "fp32"
) -> NDArray[np.float64] | None:
    """How likely each class is by the untuned base's own words: (N, C); None where its folder has no head for words.

    Args:
        base: a decoder; its backbone is used as it is.
        texts: the texts; one that is too long is cut, never the question.
        labels: the C class names.
        positive: the class that the question is about, where there are two.
        precision: "fp32", "bf16" or "fp16".

    Raises:
        UsageError: the base is no decoder, or question and answers leave no room for a text.
        BaseError: its weights cannot be read.
    """
    if not base.architecture.causal:
        raise UsageError(f"The base {base.name} is no decoder ({base.architecture.model_type}): it cannot be asked.")
    base = unprompted(base)
    assert base.folder is not None
    model = read_language_model(base.folder, base.config, base.name)
    if model is None:
        return None
    head: Any = model.get_output_embeddings().to(base.device)  # type: ignore[operator]
    del model
    before, behind, answers = question_of(labels, positive)
    front, rear = _bare(base, before, first=True), _bare(base, behind)
    said = [_bare(base, answer) for answer in answers]
    limit = position_limit(base.config) or base.max_length + len(front) + len(rear) + max(map(len, said))
    room = min(base.max_length, limit - len(front) - len(rear) - max(map(len, said)))
    if room < LEAST:
        raise UsageError(f"Question and answers leave {room} of the {limit} tokens of base {base.name} for a text.")
    around = len(base.tokenizer.around[0]), len(base.tokenizer.around[1])
    encoded = base.tokenizer.encode(list(texts), room + sum(around)).ids
    rows = [[*front, *map(int, ids[around[0] : len(ids) - around[1]]), *rear] for ids in encoded]
    scores = np.zeros((len(texts), len(labels)))
    if all(len(answer) == 1 for answer in said):  # one pass tells all answers
        scores[:] = _scores(base, head, rows, [], precision, [answer[0] for answer in said])
    else:
        for place, answer in enumerate(said):
            scores[:, place] = _scores(base, head, rows, answer[:-1], precision, answer).mean(axis=1)
    scores -= scores.max(axis=1, keepdims=True)
    powers = np.exp(scores)
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _bare(base: Base, text: str, *, first: bool = False) -> list[int]:
    """The ids of a piece of text; with what the base puts in front of a text only where it is the first piece."""
    ids = [int(id) for id in base.tokenizer.encode([text], 4096).ids[0]]
    before, behind = (len(part) for part in base.tokenizer.around)
    return ids[0 if first else before : len(ids) - behind]


def _scores(
    base: Base, head: Any, questions: Sequence[list[int]], said: Sequence[int], precision: str, wanted: Sequence[int]
) -> NDArray[np.float32]:
    """Log-probabilities behind each question: (N, A) of the ``wanted`` tokens.

    With something ``said`` already they stand in a row, one behind the other; with nothing said each of them could be
    the next.
    """
    whole = [[*question, *said] for question in questions]
    lengths = np.array([len(row) for row in whole], dtype=np.int64)
    count = len(said) + 1
    found = np.zeros((len(whole), len(wanted)), dtype=np.float32)
    with torch.inference_mode():
        for chosen in inference_rows(lengths, BATCH_TOKENS):
            width = int(lengths[chosen].max())
            ids = torch.zeros((len(chosen), width), dtype=torch.int64)  # (B, T)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(chosen):
                ids[place, : lengths[row]] = torch.tensor(whole[row])
                mask[place, : lengths[row]] = 1
            ids, mask = ids.to(base.device), mask.to(base.device)
            with autocast(precision, base.device):
                states = base.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            ends = torch.from_numpy(lengths[chosen]).to(base.device)[:, None] - count
            places = ends + torch.arange(count, device=base.device)[None]  # (B, A)
            picked = states.gather(1, places[:, :, None].expand(-1, -1, states.shape[-1])).float()  # (B, A, D)
            shares = head(picked).float().log_softmax(dim=-1)  # (B, A, V)
            each = torch.tensor(list(wanted), device=base.device)
            if count == 1:
                picked = shares[:, 0, each]
            else:
                picked = shares.gather(2, each[None, :, None].expand(len(chosen), -1, 1))[:, :, 0]
            found[chosen] = picked.cpu().numpy()
    return found
