"""How texts that are longer than a base reads are read: cut off, in chunks, or in chunks that a network combines.

Shapes: N texts, K chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from lora_clf.base.combiner import COMBINERS
from lora_clf.base.documents import Documents
from lora_clf.base.text import Side, normalise
from lora_clf.base.tokenizer import CHARACTERS_A_TOKEN, LEAST_CHARACTERS, Tokenizer, Tokens
from lora_clf.base.windows import windows
from lora_clf.data.segments import SEGMENTS, segmenter
from lora_clf.data.traced import Edit, Span, Traced, traced_to
from lora_clf.data.transcript import CLEANINGS, clean
from lora_clf.errors import UsageError, unknown

LONG: Final = ("truncate", "chunk", "hierarchical")
AGGREGATES: Final = ("mean", "max", "vote", "score")


@dataclass(frozen=True)
class Reading:
    """What happens to a text that is longer than the base reads.

    Attributes:
        long: truncate reads the start of it; chunk trains on chunks and joins their answers; hierarchical trains one
            small network over the vectors of all chunks.
        segment: what a chunk is: windows of --max-length tokens that end with a sentence, or turns, minutes (of a
            transcript) or sentences, each a chunk; those that are longer are cut into windows.
        minutes: how many minutes are a chunk, with --segment minutes.
        overlap: tokens that neighbouring windows share at most: whole sentences.
        aggregate: how the chunks' answers are joined, with --long chunk: mean, max, vote or score.
        combine: the network of --long hierarchical: attention, mlp or bilstm.
        clean: transcript numbers the speakers and takes out time stamps and filler words; or none.
        prior: the share of each label among the chunks of training, which "score" compares with.
    """

    long: str = "truncate"
    segment: str = "windows"
    minutes: int = 1
    overlap: int = 32
    aggregate: str = "mean"
    combine: str = "attention"
    clean: str = "none"
    prior: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the settings; those that do nothing are refused rather than ignored."""
        for name, kinds in (
            ("long", LONG),
            ("segment", SEGMENTS),
            ("aggregate", AGGREGATES),
            ("combine", tuple(COMBINERS)),
            ("clean", CLEANINGS),
        ):
            if getattr(self, name) not in kinds:
                raise unknown(f"value for --{name}", str(getattr(self, name)), kinds)
        problems = []
        for name in ("minutes", "overlap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < (name == "minutes"):
                problems.append(f"--{name} {value}: expected a whole number from {int(name == 'minutes')} on")
        idle = {
            "truncate": ("segment", "minutes", "overlap", "aggregate", "combine"),
            "chunk": ("combine",),
            "hierarchical": ("aggregate",),
        }[self.long]
        idle += () if self.segment == "minutes" else ("minutes",)
        usual = {field.name: field.default for field in fields(self)}
        set_idly = [f"--{name}" for name in dict.fromkeys(idle) if getattr(self, name) != usual[name]]
        if set_idly:
            needs = "; add --long chunk or --long hierarchical" if self.long == "truncate" else ""
            problems.append(
                f"{', '.join(set_idly)} would do nothing with --long {self.long} --segment {self.segment}{needs}"
            )
        if problems:
            raise UsageError("; ".join(problems) + ".")

    @property
    def whole(self) -> bool:
        """Whether all of a text is read."""
        return self.long != "truncate"

    @property
    def combiner(self) -> str | None:
        """The network over chunks, where there is one."""
        return self.combine if self.long == "hierarchical" else None

    def __str__(self) -> str:
        """For people."""
        said = {"truncate": "what is too long is cut off", "hierarchical": f"chunks combined by {self.combine}"}
        parts = [said.get(self.long, f"chunks joined by {self.aggregate}")]
        if self.whole:
            length = f" of {self.minutes}" if self.segment == "minutes" else ""
            parts.append(f"{self.segment}{length}, overlap {self.overlap}")
        parts += [f"cleaned as {self.clean}"] if self.clean != "none" else []
        return "; ".join(parts)

    def settings(self) -> dict[str, Any]:
        """What an adapter must store to read texts as it was trained to; nothing where they are simply cut off."""
        usual = {field.name: field.default for field in fields(self)}
        found = {name: value for name in usual if (value := getattr(self, name)) != usual[name]}
        if self.whole:
            found |= {"long": self.long, "segment": self.segment, "overlap": self.overlap}
            found |= {"aggregate": self.aggregate} if self.combiner is None else {"combine": self.combine}
        if self.prior is not None:
            found["prior"] = list(self.prior)
        return found

    @classmethod
    def restored(cls, settings: Mapping[str, Any]) -> Reading:
        """The reading that `settings` are of.

        Raises:
            UsageError: they are none.
        """
        names = {field.name for field in fields(cls)}
        if unheard := sorted(settings.keys() - names):
            raise UsageError(f"A reading has no {', '.join(unheard)}; it has {', '.join(sorted(names))}.")
        values = dict(settings)
        if isinstance(prior := values.get("prior"), (list, tuple)):
            if not all(isinstance(share, (int, float)) and 0 < share <= 1 for share in prior):
                raise UsageError(f"A reading's prior is {list(prior)!r}, expected shares above 0.")
            values["prior"] = tuple(float(share) for share in prior)
        return cls(**values)

    def with_prior(self, shares: Sequence[float]) -> Reading:
        """The same with the labels' shares, where the joined answer depends on them."""
        needs = self.long == "chunk" and self.aggregate == "score"
        return replace(self, prior=tuple(float(share) for share in shares)) if needs else self


PLAIN: Final = Reading()


def read(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, side: Side = "right", reading: Reading = PLAIN
) -> Tokens:
    """The token ids of ``texts`` as ``reading`` has them read: `Documents` where they are read in chunks.

    Args:
        tokenizer: of the base.
        texts: any texts; they are normalised as `Tokenizer.encode` does.
        max_length: tokens a chunk, special tokens included.
        side: what is cut off where texts are truncated.
        reading: how.

    Raises:
        UsageError: as `Tokenizer.encode`, or an overlap that leaves no room for what is new.
    """
    if isinstance(texts, str):
        raise UsageError("Expected a list of texts, got one text. Put it into a list: [text].")
    if not reading.whole:
        if reading.clean != "none":
            texts = [_cleaned(text).text for text in texts]
        return tokenizer.encode(texts, max_length, side)
    around = sum(len(part) for part in tokenizer.around)
    room = max_length - around
    if room >= 1 and reading.overlap * 2 > room and reading.overlap != PLAIN.overlap:
        raise UsageError(
            f"--overlap {reading.overlap}: with {room} tokens of text a window at most half of them can be shared."
        )
    characters = max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * max_length)
    overlap = min(reading.overlap, max(room, 0) // 2)
    cut = segmenter(reading.segment, reading.minutes)
    segments: list[Traced] = []
    owners: list[int] = []
    left_out = np.zeros(len(texts), dtype=np.bool_)
    for number, text in enumerate(texts):
        normal = _normal(text)
        start, end = tokenizer.ends(normal.text)  # those of the whole text, before there are windows
        if end - start < len(normal.text):
            normal, left_out[number] = normal.piece(start, end), True
        mine = [part for part in _segments(normal, cut, reading.clean) if part.text.strip()] or [Traced("")]
        segments += mine
        owners += [number] * len(mine)
    if room < 1:
        return tokenizer.encode([""], max_length)  # which says what to do
    spans = windows(
        [part.text for part in segments], tokenizer.count, room=room, characters=characters, overlap=overlap
    )
    pieces: list[str] = []
    places: list[Span] = []
    chunks = np.zeros(len(texts), dtype=np.int64)
    for segment, owner, mine_spans in zip(segments, owners, spans, strict=True):
        for span in mine_spans:
            pieces.append(segment.text[span.start : span.end])
            places.append(segment.span(*span))
            chunks[owner] += 1
    encoded = tokenizer.encode_pieces(pieces, max_length, side)
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(chunks)])
    found = encoded.ids, encoded.truncated
    return Documents(*found, first=first, spans=tuple(places), left_out=left_out, reading=reading)


def _segments(whole: Traced, cut: Any, cleaning: str) -> list[Traced]:
    """The segments of a normalised text, cut, then cleaned; traced to the text as it came."""
    spans = cut(whole.text)
    edits = clean(whole.text).edits if cleaning == "transcript" else ()
    found, next_edit = [], 0
    for start, end in spans:
        mine = []
        while next_edit < len(edits) and edits[next_edit].start < end:
            edit = edits[next_edit]
            put = edit.put if edit.start >= start else ""  # of an edit across two segments the first gets what it puts
            mine.append(Edit(max(edit.start, start) - start, min(edit.end, end) - start, put, edit.kind))
            if edit.end > end:
                break
            next_edit += 1
        found.append(whole.piece(start, end).edited(mine) if mine or len(spans) > 1 else whole)
    return found


def whole_text(text: str, reading: Reading) -> str:
    """All of a text as it would be read if it were short: normalised, and cleaned where that is asked for."""
    return (_normal(text) if reading.clean == "none" else _cleaned(text)).text


def _normal(text: str) -> Traced:
    return traced_to(text, normalise(text, max(len(text), 1)).text)


def _cleaned(text: str) -> Traced:
    whole = _normal(text)
    return whole.edited(clean(whole.text).edits)
