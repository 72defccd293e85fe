"""A disk that is full, broken, read-only, closed or takes half of what it is given: at every call of a save and a load.

What comes is an error of this library in one line, and what was there before is there still.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.file import read_folder
from lora_clf.base import sources
from lora_clf.base.base import Base
from lora_clf.base.catalogue import BaseEntry, PublishedFile
from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.outcome import write_outcome
from lora_clf.data import sms_spam
from lora_clf.errors import AdapterError, CheckpointError, LoraClfError
from lora_clf.inference.cache import prefix_cache
from lora_clf.reports import plots, report
from lora_clf.training.checkpoint import read_checkpoint
from lora_clf.training.checkpoints import CheckpointFolder, Checkpoints, generations
from lora_clf.training.loop import train
from lora_clf.training.result import Result
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.comparison.invented import invented
from tests.faults import CHANGES, READS, failing
from tests.stress.conftest import Counted
from tests.training.test_checkpoints import made
from tests.training.test_loop import FAST, toy

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="the disk is made to fail by ways of Linux"),
]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
MOST = 400


def fault(number: int) -> Callable[[], OSError]:
    return lambda: OSError(number, os.strerror(number))


@pytest.fixture(scope="module")
def result() -> Result:
    return train(tiny_base("bert"), toy(), create("lora"), FAST)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was there before."""
    found = train(tiny_base("bert"), toy(), create("lora"), replace(FAST, seed=8))
    return found.save(tmp_path_factory.mktemp("older") / "adapter")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "once"])
@pytest.mark.parametrize("overwriting", [True, False])
@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_saving_an_adapter(
    number: int, overwriting: bool, lasting: bool, result: Result, older: Path, tmp_path: Path, counted: Counted
) -> None:
    before, refused = contents(older), 0
    for call in range(1, MOST):
        place = tmp_path / str(call)
        place.mkdir()
        if overwriting:
            shutil.copytree(older, place / "a")
        with failing(fault(number), call, under=str(place), lasting=lasting) as faults:
            try:
                result.save(place / "a", force=True)
            except LoraClfError as error:
                refused += 1
                assert isinstance(error, AdapterError) and os.strerror(number) in str(error) and "\n" not in str(error)
                left = contents(place / "a")
                # A disk on which nothing works any more takes back no name either: then it is the new one, whole.
                if lasting and left != (before if overwriting else {}):
                    assert read_folder(place / "a")[0].digest == result.adapter.header.digest
                    continue
                assert left == (before if overwriting else {}) and (overwriting or not (place / "a").exists())
            else:
                assert read_folder(place / "a")[0].digest == result.adapter.header.digest
        result.save(place / "a", force=True)  # the disk is well again
        if not faults.names:
            break
    assert 8 <= refused < MOST - 1
    counted(f"saving an adapter, {errno.errorcode[number]}, {'over another' if overwriting else 'free place'}, "
            f"{'lasting' if lasting else 'once'}", {"faults": call - 1, "refused": refused, "torn": 0})  # fmt: skip


@pytest.mark.parametrize("overwriting", [True, False])
def test_saving_an_adapter_on_a_disk_that_takes_half(
    overwriting: bool, result: Result, older: Path, tmp_path: Path, counted: Counted
) -> None:
    """Half of a write arrives, and the disk says that all of it did."""
    before, refused = contents(older), 0
    for call in range(1, MOST):
        place = tmp_path / str(call)
        place.mkdir()
        if overwriting:
            shutil.copytree(older, place / "a")
        with failing(fault(errno.EIO), call, ("write",), under=str(place), lasting=False, short=True) as faults:
            try:
                result.save(place / "a", force=True)
            except AdapterError as error:
                refused += 1
                assert "bytes of" in str(error) and "\n" not in str(error)
                assert contents(place / "a") == (before if overwriting else {})
        if not faults.names:
            break
    assert read_folder(place / "a")[0].digest == result.adapter.header.digest
    assert refused == call - 1 == 3  # one for each file
    counted(f"saving an adapter, half of a write, {'over another' if overwriting else 'free place'}",
            {"faults": call - 1, "refused": refused, "torn": 0})  # fmt: skip


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_loading_an_adapter(number: int, older: Path, counted: Counted) -> None:
    base, refused = tiny_base("bert"), 0
    for call in range(1, MOST):
        with failing(fault(number), call, READS, under=str(older), lasting=True) as faults:
            try:
                load_adapter(older, base)
            except LoraClfError as error:
                refused += 1
                assert isinstance(error, AdapterError) and str(older) in str(error) and "\n" not in str(error)
        if not faults.names:
            break
    assert 3 <= refused < MOST - 1
    counted(f"loading an adapter, {errno.errorcode[number]}", {"faults": call - 1, "refused": refused})


@pytest.mark.parametrize("lasting", [True, False], ids=["all", "one"])
def test_loading_what_is_read_in_half(lasting: bool, older: Path, tmp_path: Path, counted: Counted) -> None:
    """A read that ends early is no shorter file: of an adapter, and of a checkpoint."""
    base = tiny_base("bert")
    with CheckpointFolder(Checkpoints(tmp_path / "kept")) as store:
        store.write(made(1))
    (checkpoint,) = generations(tmp_path / "kept")
    for what, folder, load, kind in (
        ("an adapter", older, lambda: load_adapter(older, base), AdapterError),
        ("a checkpoint", checkpoint, lambda: read_checkpoint(checkpoint), CheckpointError),
    ):
        before, refused = contents(folder), 0
        for call in range(1, MOST):
            with failing(fault(errno.EIO), call, ("read",), under=str(folder), lasting=lasting, short=True) as faults:
                try:
                    load()
                except LoraClfError as error:
                    refused += 1
                    assert isinstance(error, kind) and "\n" not in str(error)
                else:
                    assert not faults.names, (what, call)
            if not faults.names:
                break
        assert 3 <= refused == call - 1 and contents(folder) == before
        counted(
            f"loading {what}, half of a read, {'all' if lasting else 'one'}", {"faults": call - 1, "refused": refused}
        )
    load_adapter(older, base, verify=True)


def at_every_call(
    place: Path, work: Callable[[Path], object], number: int, lasting: bool, before: dict[str, bytes] | None,
    names: tuple[str, ...] = CHANGES, short: bool = False,
) -> tuple[int, int]:  # fmt: skip
    """How many calls that change the disk ``work`` makes, and how often it was refused when one of them failed.

    ``before`` is what a folder holds before; a file of it is then the old or the new one, whole. None: nothing is
    there, and each file is the new one or absent. At last, on a disk that is well again, everything is new.
    """
    whole = place / "whole"
    work(whole)
    new, refused = contents(whole), 0
    for call in range(1, MOST):
        folder = place / str(call)
        for name, content in (before or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        with failing(fault(number), call, names, under=str(folder), lasting=lasting, short=short) as faults:
            try:
                work(folder)
            except LoraClfError as error:
                refused += 1
                assert "\n" not in str(error) and (short or os.strerror(number) in str(error)), error
        left = {name: content for name, content in contents(folder).items() if not is_rest(name)}
        assert left.keys() <= new.keys() | (before or {}).keys(), left.keys()
        for name, content in left.items():
            assert content in ((before or {}).get(name), new.get(name)), name
        assert left.keys() >= (before or {}).keys(), (before or {}).keys() - left.keys()
        work(folder)
        assert {name: content for name, content in contents(folder).items() if not is_rest(name)} == new
        if not faults.names:
            return call - 1, refused
    raise AssertionError("it never came to an end")


def is_rest(name: str) -> bool:
    """Whether it is what a disk on which nothing works any more left of a file under way; nobody reads it."""
    return any(part.startswith(".") for part in Path(name).parts)


FAULTS = [(number, lasting, False) for number in ERRORS for lasting in (True, False)] + [(errno.EIO, False, True)]


def named(number: int, lasting: bool, short: bool) -> str:
    return "half of a write" if short else f"{errno.errorcode[number]}, {'lasting' if lasting else 'once'}"


@pytest.fixture(scope="module")
def drawn() -> Iterator[tuple[Comparison, Comparison]]:
    """Two comparisons whose documents are made and whose plots are drawn once: the disk is what is asked about."""
    both = tuple(invented({"head-only": rate}, rows=60, seeds=1) for rate in (0.9, 0.8))
    made = {id(one): report.document(one) for one in both}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "document", lambda one, kind: made[id(one)])
        patch.setattr(plots, "rendered", lambda *_: b"a plot" * 2_000)
        yield both


@pytest.mark.parametrize(("number", "lasting", "short"), FAULTS)
def test_the_results_of_a_comparison(
    number: int,
    lasting: bool,
    short: bool,
    drawn: tuple[Comparison, Comparison],
    tmp_path: Path,
    counted: Counted,
) -> None:
    """A run's result, and report, table and plots."""
    old, new = drawn
    names = ("write",) if short else CHANGES
    for what, work, least in (
        ("a run", lambda comparison: lambda folder: write_outcome(comparison.outcomes[0], folder / "cell"), 2),
        ("a report", lambda comparison: lambda folder: report.write_report(comparison, folder), 4),
    ):
        for over in (False, True):
            place = tmp_path / f"{what} {over}"
            before = None
            if over:
                work(old)(place / "before")
                before = contents(place / "before")
            tried, refused = at_every_call(place, work(new), number, lasting, before, names, short)
            assert tried >= refused >= least
            counted(f"keeping {what} of a comparison, {named(number, lasting, short)}, "
                    f"{'over another' if over else 'free place'}",
                    {"faults": tried, "refused": refused, "torn": 0})  # fmt: skip


@pytest.mark.parametrize(("number", "lasting", "short"), FAULTS)
def test_what_is_downloaded(
    number: int, lasting: bool, short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    """The SMS collection and a base: in the cache is the published file, or none."""
    data = b"ham\tAre you there?\nspam\tWIN a prize\n" * 20
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(sms_spam.SMS_MEMBER, data)
    monkeypatch.delenv(sms_spam.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(sms_spam, "SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(sms_spam, "download", lambda *_, **__: archive.getvalue())
    files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4}
    published = {
        name: PublishedFile(len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }
    entry = BaseEntry("minilm", "owner/tiny", "0" * 40, 1, 10_000, "mean", 256, "Apache-2.0", published, packaged=False)
    monkeypatch.setattr(sources, "CATALOGUE", {"minilm": entry})
    there = tmp_path / "hub"
    there.mkdir()
    for name, content in files.items():
        (there / name).write_bytes(content)
    monkeypatch.setattr(sources.hub, "cached", lambda *_: there)

    def base(folder: Path) -> None:
        monkeypatch.setenv("LORA_CLF_CACHE", str(folder))
        sources.locate("minilm")

    names = ("write",) if short else CHANGES
    for what, work, least in (
        ("the SMS collection", lambda folder: sms_spam.locate(urls=["x"], cache=folder), 1),
        ("a base", base, 3),
    ):
        if short and what == "a base":  # the system copies it, and its digests are looked at behind that
            continue
        for over in (False, True):
            place = tmp_path / f"{what} {over}"
            before = None
            if over:  # of another version, or spoilt: not the published bytes
                work(place / "before")
                before = {name: content + b"x" for name, content in contents(place / "before").items()}
            tried, refused = at_every_call(place, work, number, lasting, before, names, short)
            assert tried >= refused >= least
            counted(f"keeping {what} in the cache, {named(number, lasting, short)}, "
                    f"{'over another' if over else 'free place'}",
                    {"faults": tried, "refused": refused, "false bytes kept": 0})  # fmt: skip


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_a_run_whose_checkpoints_the_disk_does_not_take_goes_on(number: int, tmp_path: Path, counted: Counted) -> None:
    base, data, tuner = tiny_base("bert"), toy(), create("lora")
    whole = train(base, data, tuner, FAST).adapter.tuned.state_dict()
    refused = finished = 0
    for call in range(1, 120, 7):
        folder = tmp_path / str(call)
        told: list[str] = []
        with failing(fault(number), call, under=str(folder)):
            try:
                found = train(base, data, tuner, FAST, checkpoints=Checkpoints(folder, every=3, tell=told.append))
            except CheckpointError as error:  # before the first step
                assert os.strerror(number) in str(error) and "\n" not in str(error)
                refused += 1
                continue
        finished += 1
        state = found.adapter.tuned.state_dict()
        assert all(torch.equal(state[name], whole[name]) for name in whole)
        assert told and all(os.strerror(number) in line and "\n" not in line for line in told)
        assert any("could not be written" in warning for warning in found.warnings)
        for path in generations(folder):
            assert read_checkpoint(path).facts["position"]["step"] % 3 == 0
    assert refused >= 1 and finished >= 10
    counted(f"training with checkpoints, {errno.errorcode[number]}", {"refused": refused, "finished": finished})


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_resuming_from_a_disk_that_cannot_be_read(number: int, tmp_path: Path, counted: Counted) -> None:
    with CheckpointFolder(Checkpoints(tmp_path / "kept")) as store:
        store.write(made(1))
    before, refused = contents(tmp_path / "kept"), 0
    for call in range(1, MOST):
        with (
            failing(fault(number), call, READS, under=str(tmp_path / "kept" / "checkpoint")) as faults,
            CheckpointFolder(Checkpoints(tmp_path / "kept", resume=True)) as store,
        ):
            try:
                store.newest()
            except CheckpointError as error:
                refused += 1
                assert "No checkpoint in" in str(error) and "\n" not in str(error)
        assert contents(tmp_path / "kept") == before
        if not faults.names:
            break
    assert 3 <= refused < MOST - 1
    counted(f"reading a checkpoint, {errno.errorcode[number]}", {"faults": call - 1, "refused": refused})


@pytest.mark.parametrize("short", [False, True], ids=["fails", "half"])
@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
def test_the_kept_states_of_frozen_layers(
    number: int, short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    """What the disk does not take is computed again: the bytes of a run never depend on it."""
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path))
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "1GB")

    def run() -> dict[str, torch.Tensor]:
        base: Base = tiny_base("bert")  # whose own memory is empty
        found = train(base, toy(), create("last-block"), FAST).adapter.tuned.state_dict()
        assert len(prefix_cache(base)) > 0
        return found

    expected, runs = run(), 0
    for names in (CHANGES, READS):
        for call in (*range(1, 12), 20, 40, 80):
            if names is CHANGES:
                shutil.rmtree(tmp_path / "prefix", ignore_errors=True)
            for _ in range(2):  # what one run leaves the next one may find
                with failing(fault(number), call, names, under=str(tmp_path), lasting=not short, short=short):
                    found = run()
                assert all(torch.equal(found[name], expected[name]) for name in expected)
                runs += 1
    found = run()
    assert all(torch.equal(found[name], expected[name]) for name in expected) and runs == 56
    counted(f"kept states, {errno.errorcode[number]}, {'half' if short else 'fails'}", {"runs": runs, "other bytes": 0})
