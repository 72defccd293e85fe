"""A head in words: a template around the text, and how likely a decoder's own language model finds each label's word.

Prompt completion, as pattern and verbalizer of Schick and Schuetze (2021, "Exploiting Cloze Questions for Few Shot Text
Classification and Natural Language Inference", section 3), for decoders: the text is put into a template, and the
scores of the labels are the language model's scores of their words at the place that comes next. Like there, and in
Gao et al. (2021, "Making Pre-trained Language Models Better Few-shot Learners"), a word counts with one token: the
first that tells the words apart; what all of them begin with stands behind the template. What trains beside a
strategy's own parameters is one bias a label, zero at first: the calibration of Zhao et al. (2021, "Calibrate Before
Use", section 5). The words' rows are the base's own and stay frozen, whatever a strategy does to the embeddings.

Shapes: N texts, C labels, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lora_clf.base.text import Side, normalise
from lora_clf.base.tokenizer import CHARACTERS_A_TOKEN, LEAST_CHARACTERS, Tokenizer, Tokens
from lora_clf.errors import UnsupportedBaseError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from lora_clf.base.base import Base

    Row = NDArray[np.int32]

TEXT: Final = "{text}"
TEMPLATE: Final = "Text: {text}\nLabel:"
LEAST: Final = 8  # tokens of a text that have to fit beside the template
_OUTPUTS: Final = ("lm_head.weight", "embed_out.weight")  # what transformers calls rows that are not the embeddings
_SAMPLE: Final = "x"  # stands for a text where the end of a template is looked at


@dataclass(frozen=True)
class Verbalizer:
    """What to ask a decoder, and which word of its answer stands for which label.

    Attributes:
        template: the text's place is ``{text}``; the answer comes right behind the template.
        words: the word of each label; None: the labels' own names.
    """

    template: str = TEMPLATE
    words: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Check the template."""
        problem = None
        if self.template.count(TEXT) != 1:
            problem = f"expected {TEXT} once, the text's place"
        elif not self.template.partition(TEXT)[2].strip():
            problem = f"expected words behind {TEXT} that the answer follows"
        if problem is not None:
            raise UsageError(f"--template {self.template!r}: {problem}, as {TEMPLATE!r}.")

    def on(self, base: Base, labels: Sequence[str]) -> Base:
        """The same base seen through the template: it reads texts inside it, and its heads are the labels' words.

        Raises:
            UsageError: words are missing or for unknown labels, two begin with the same token, or the template leaves
                no room for a text.
            UnsupportedBaseError: the base is no decoder, or its folder holds no language model's head.
        """
        given = {label: label for label in labels} if self.words is None else dict(self.words)
        missing, unknown = [x for x in labels if x not in given], [x for x in given if x not in labels]
        if missing or unknown:
            problems = [f"no word for {', '.join(missing)}"] if missing else []
            problems += [f"no label {', '.join(unknown)}"] if unknown else []
            raise UsageError(f"--verbalizer: {'; '.join(problems)}. The labels are: {', '.join(labels)}.")
        return prompted(base, self.template, tuple(given[label] for label in labels))


@dataclass(frozen=True, eq=False)
class Prompt:
    """A verbalizer on a base.

    Attributes:
        template: around the text.
        words: one a label, in the order of the logits.
        ids: the token that tells each of them from the others.
        rows: what the language model's head has for these tokens: (C, D).
    """

    template: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    rows: Tensor = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over the words' rows, which need not be among the weights that the base's digest covers."""
        return hashlib.sha256(self.rows.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


class PromptTokenizer(Tokenizer):
    """Reads each text inside a template; what is cut of a text that is too long is never the template.

    Attributes:
        lead: the tokens that all words begin with, as the space of a tokenizer of bytes; they end the template.
        firsts: the token of each word behind those.
    """

    def __init__(self, inner: Tokenizer, template: str, words: Sequence[str]) -> None:
        self.inner, self.template, self.words = inner, template, tuple(words)
        self.pad_id, self.empty_id = inner.pad_id, inner.empty_id
        self._backend = inner._backend
        self._prefix, self._suffix = inner.around[0], ()  # the text goes on, so nothing that ends one stands behind it
        self._before, _, self._behind = template.partition(TEXT)
        self.lead: tuple[int, ...] = ()
        self.lead, self.firsts = self._answers()

    @property
    def digest(self) -> str:
        """That of the base's tokenizer: template and words are a field of their own."""
        return self.inner.digest

    def encode(self, texts: Sequence[str], max_length: int, side: Side = "right") -> Tokens:
        """Ids of the filled template, read as one string, at most ``max_length`` of them; see `Tokenizer.encode`.

        Raises:
            UsageError: as there, or the template leaves no room for a text.
        """
        if isinstance(texts, str):
            raise UsageError("Expected a list of texts, got one text. Put it into a list: [text].")
        cap = max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * max_length)
        normal = [normalise(text, cap, side) for text in texts]
        ids = self._filled([text.text for text in normal])
        truncated = np.array([text.truncated for text in normal], dtype=np.bool_)
        for place, row in enumerate(ids):
            if len(row) > max_length:
                ids[place], truncated[place] = self._cut(normal[place].text, max_length, side), True
        return Tokens(ids, truncated)

    def _filled(self, texts: Sequence[str], behind: str = "") -> list[Row]:
        """The ids of each text in the template, however long, and the lead; ``behind`` is put behind the template."""
        whole = [f"{self._before}{text}{self._behind}{behind}" for text in texts]
        # No text has more tokens than bytes.
        room = max((len(text.encode("utf-8", "replace")) for text in whole), default=0) + 64
        cap = max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * room)
        whole = [normalise(text, cap, "right").text for text in whole]
        ends = len(self.inner.around[1])
        lead = np.array(self.lead, dtype=np.int32)
        # As pieces: what spells a special token at an end of the template, or of a text in it, stays as letters.
        return [np.concatenate([row[: len(row) - ends], lead]) for row in self.inner.encode_pieces(whole, room).ids]

    def _cut(self, text: str, max_length: int, side: Side) -> Row:
        """The ids with as many characters of ``text`` as fit, found by halving."""
        (found,) = self._filled([""])
        if len(found) + LEAST > max_length:
            raise UsageError(
                f"The template has {len(found)} tokens and leaves {max(0, max_length - len(found))} of {max_length} "
                f"for a text; expected {LEAST} at least. Give a shorter --template or a larger --max-length."
            )
        fits, over = 0, len(text)
        while over - fits > 1:
            middle = (fits + over) // 2
            (row,) = self._filled([text[:middle] if side == "right" else text[-middle:]])
            if len(row) <= max_length:
                fits, found = middle, row
            else:
                over = middle
        return found

    def _answers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that all words begin with, and the one behind them of each.

        Raises:
            UsageError: a word is empty or joined with the end of the template, or two cannot be told apart.
        """
        if empty := [word for word in self.words if not word.strip()]:
            raise UsageError(f"--verbalizer: the word {empty[0]!r} is empty.")
        gap = "" if self.template[-1].isspace() else " "
        (before,) = self._filled([_SAMPLE])
        answers = []
        for word in self.words:
            (after,) = self._filled([_SAMPLE], f"{gap}{word.strip()}")
            if len(after) == len(before) or not np.array_equal(after[: len(before)], before):
                raise UsageError(
                    f"--template {self.template!r}: the tokenizer joins its end and the word {word!r}. End it with a "
                    "punctuation mark and no space."
                )
            answers.append(tuple(after[len(before) :].tolist()))
        common = next(
            (place for place, tokens in enumerate(zip(*answers, strict=False)) if len(set(tokens)) > 1),
            min(map(len, answers)),
        )
        firsts = [answer[common] if len(answer) > common else None for answer in answers]
        alike = [
            ", ".join(repr(word) for word, other in zip(self.words, firsts, strict=True) if other == first)
            for first in dict.fromkeys(firsts)
            if firsts.count(first) > 1 or first is None
        ]
        if alike:
            raise UsageError(
                f"--verbalizer: {'; '.join(alike)} begin with the same token, which does not tell them apart. "
                "Give other words, as --verbalizer 'spam=yes,ham=no'."
            )
        return answers[0][:common], tuple(first for first in firsts if first is not None)


def prompted(base: Base, template: str, words: Sequence[str]) -> Base:
    """``base`` seen through a template and words, one a label; see `Verbalizer.on`."""
    base = unprompted(base)
    if not base.architecture.causal:
        raise UnsupportedBaseError(
            f"--head verbalizer needs a decoder, whose language model goes on from a text; {base.name} is "
            f"{base.architecture.model_type}, an encoder. Use --head linear."
        )
    tokenizer = PromptTokenizer(base.tokenizer, template, words)
    prompt = Prompt(template, tokenizer.words, tokenizer.firsts, _rows(base, tokenizer.firsts))
    return replace(base, tokenizer=tokenizer, pooling="last", prompt=prompt)


def unprompted(base: Base) -> Base:
    """The base without template and words."""
    if base.prompt is None:
        return base
    assert isinstance(base.tokenizer, PromptTokenizer)
    return replace(base, tokenizer=base.tokenizer.inner, pooling=base.architecture.pooling, prompt=None)


def _rows(base: Base, ids: Sequence[int]) -> Tensor:
    """The rows of the language model's head: (C, D), in fp32 on the base's device.

    Raises:
        UnsupportedBaseError: the folder has none.
    """
    import torch

    if getattr(base.config, "tie_word_embeddings", False):
        table = base.backbone.get_input_embeddings().weight  # type: ignore[operator]
        return table.detach()[torch.tensor(ids, device=table.device)].float().clone()  # type: ignore[no-any-return]
    found = None if base.folder is None else _stored(base.folder, ids)
    if found is None:
        raise UnsupportedBaseError(
            f"The folder of base {base.name} holds no language model's head ({' or '.join(_OUTPUTS)}), which --head "
            "verbalizer needs. Fetch the base as it was published for text generation, or use --head linear."
        )
    return found.float().to(base.device)


def _stored(folder: Path, ids: Sequence[int]) -> Tensor | None:
    """Some rows of the output layer in a base folder's safetensors files; nothing else of them is read."""
    import torch
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in set(_OUTPUTS).intersection(tensors.keys()):
                table = tensors.get_slice(name)
                return torch.cat([table[id : id + 1] for id in ids])
    return None
