"""Transcripts are cut at turns and minutes and cleaned; nothing is lost that was not meant to go."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_clf.data.segments import SEGMENTS, minutes, segmenter, sentences, turns
from lora_clf.data.traced import Edit, Traced, traced_to
from lora_clf.data.transcript import clean, labels_in, times_in

MEETING = """[00:00:01] JOHN SMITH: Um, hello. So, uh, this is the thing.
00:00:40 Anna: I, um, think it's 5 mm long, you know, at 5:30 pm.
12:30 suits me.
John  Smith (01:10): Uh. Well, mhm. We met Dr. Brown at 3.5 km.
Anna 02:15
It is 12:30 now. Uh-huh
>> BOB:  bye um.
"""
VTT = """WEBVTT

1
00:00:01.000 --> 00:00:04.000
<v Anna>Hello there.</v>

2
00:01:05,000 --> 00:01:08,000
<v Bob Q>Hi, ok</v>
"""


def cleaned(text: str) -> str:
    return Traced(text).edited(clean(text).edits).text


def parts(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_a_transcript_is_cleaned() -> None:
    assert cleaned(MEETING) == (
        "Speaker 1: hello. So this is the thing.\n"
        "Speaker 2: I think it's 5 mm long, at 5:30 pm.\n"
        "12:30 suits me.\n"
        "Speaker 1: Well. We met Dr. Brown at 3.5 km.\n"
        "Speaker 2: It is 12:30 now. \n"
        "Speaker 3: bye.\n"
    )
    found = clean(MEETING)
    assert found.speakers == ("john smith", "anna", "bob")  # one spelled in two ways is one
    kinds = [edit.kind for edit in found.edits]
    assert (kinds.count("speaker"), kinds.count("timestamp"), kinds.count("filler")) == (5, 2, 8)
    assert [MEETING[e.start : e.end] for e in found.edits if e.kind == "timestamp"] == ["[00:00:01] ", "00:00:40 "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Um, I see.", "I see."),
        ("I think, um this.", "I think, this."),
        ("So um.", "So."),
        ("Uh, um, well.", "well."),
        ("I like it, like, a lot.", "I like it, a lot."),
        ("Hmm... no.", "no."),
        ("I like umbrellas, hummus and summer; an 8 mm drill, her hum.", None),
        ("See http://a.b/c: it is at 12:30.", None),
        ("The score was 3:2 in the end", None),
        ("(see note 4) and [sic]", None),
    ],
)
def test_fillers_go_and_words_stay(text: str, expected: str | None) -> None:
    assert cleaned(text) == (text if expected is None else expected)


def test_cue_lines_and_voices_are_known() -> None:
    assert cleaned(VTT) == "WEBVTT\n\nSpeaker 1: Hello there.\n\nSpeaker 2: Hi, ok\n"
    assert [round(found.seconds) for found in times_in(VTT)] == [1, 65]
    assert parts(VTT, turns(VTT))[1].startswith("1\n00:00:01.000")  # the cue line belongs to the turn behind it
    assert len(minutes(VTT)) == 2 and parts(VTT, minutes(VTT))[1].startswith("2\n00:01:05")


def test_turns_and_minutes_begin_where_lines_do() -> None:
    assert [part.split("\n")[0][:12] for part in parts(MEETING, turns(MEETING))] == [
        "[00:00:01] J", "00:00:40 Ann", "John  Smith ", "Anna 02:15", ">> BOB:  bye",
    ]  # fmt: skip
    assert [part[:11] for part in parts(MEETING, minutes(MEETING))] == ["[00:00:01] ", "John  Smith", "Anna 02:15\n"]
    assert len(minutes(MEETING, 2)) == 2 and len(minutes(MEETING, 5)) == 1
    assert turns("no labels here") == [(0, 14)] and minutes("no times here") == [(0, 13)]
    assert [label.speaker for label in labels_in("Dr. Who: a\nDR WHO: b\nDr.  Who (00:10): c")] == [
        "dr. who", "dr who", "dr. who",
    ]  # fmt: skip


def test_sentences_end_where_they_do() -> None:
    text = 'We met Dr. Brown at 3.5 km. He said "no." I left! See J. Doe, e.g. here, No. 5. Why?\nNext line 。次。'
    assert parts(text, sentences(text)) == [
        "We met Dr. Brown at 3.5 km. ", 'He said "no." ', "I left! ", "See J. Doe, e.g. here, No. 5. ", "Why?\n",
        "Next line 。", "次。",
    ]  # fmt: skip


PIECES = [*"aB1 .!?\n:,[]<>-", "um", "Ann: ", "00:10 ", "[01:02:03] ", "é", "<v A>"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_segments_are_the_whole_text_and_edits_fit(text: str) -> None:
    assert len(SEGMENTS) == 4
    for kind in SEGMENTS:
        spans = segmenter(kind)(text)
        assert "".join(parts(text, spans)) == text
        assert all(start < end for start, end in spans) or not text
    edits = clean(text).edits
    assert all(a.end <= b.start for a, b in pairwise(edits))
    assert all(0 <= e.start <= e.end <= len(text) for e in edits)


def test_places_are_those_of_the_original() -> None:
    text = "Um, JOHN said so."
    traced = Traced(text).edited([Edit(0, 4, "", "filler"), Edit(4, 8, "Speaker 1", "speaker")])
    assert traced.text == "Speaker 1 said so."
    assert traced.span(0, 9) == (4, 8) and traced.span(10, 14) == (9, 13)
    assert traced.piece(10, 14).edited([Edit(0, 1, "S", "x")]).span(0, 4) == (9, 13)
    assert Traced("abc").span(1, 2) == (1, 2) and Traced("abc").edited([]).span(3, 3) == (3, 3)
    odd = traced_to("a\x00b\ud83d\ude00c\ud800", "ab\U0001f600c\ufffd")
    assert odd.starts is not None and odd.starts.tolist() == [0, 2, 3, 5, 6] and odd.span(2, 3) == (3, 5)


def test_storms_take_linear_time() -> None:
    began = time.process_time()
    for storm in (
        "um " * 20_000,
        " " * 60_000,
        "[" * 60_000,
        "1:" * 30_000,
        "A b " * 15_000,
        "." * 60_000,
        "\n" * 60_000,
    ):
        clean(storm)
        for kind in SEGMENTS:
            segmenter(kind)(storm)
    assert time.process_time() - began < 30


SRT = """1
00:00:01,000 --> 00:00:04,000
Anna: Um, hello.

2
00:00:05,000 --> 00:00:06,000
Ben 00:12
Good morning.

00:12
Yes.
"""


@pytest.mark.parametrize("text", [MEETING, VTT, SRT])
def test_lines_may_end_as_on_windows(text: str) -> None:
    windows = text.replace("\n", "\r\n")
    assert cleaned(windows).replace("\r\n", "\n") == cleaned(text)
    assert len(clean(windows).edits) == len(clean(text).edits) >= 3
    assert [windows[a:b].replace("\r\n", "\n") for a, b in turns(windows)] == [text[a:b] for a, b in turns(text)]
