"""An adapter on the Hub: three files, none of them large, read like those of any folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.file import FILES, MODEL
from lora_clf.adapters.origin import adapter_folder
from lora_clf.errors import AdapterFormatError, AdapterNotFoundError
from tests.adapters.making import make

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A Hub with one adapter, whose files its library's own cache holds as links."""

    def __init__(self, root: Path, files: Path) -> None:
        self.snapshot, self.files = root / "snapshots" / COMMIT, files
        self.asked: list[dict[str, Any]] = []
        self.fetched: list[dict[str, Any]] = []
        self.out_of_reach = False

    def info(self, repo: str, **how: Any) -> Any:
        self.asked.append({"repo": repo, **how})
        if self.out_of_reach:
            raise ConnectionError("refused")
        if repo != "ann/spam":
            response: Any = SimpleNamespace(
                status_code=404, headers={}, request=SimpleNamespace(headers={}, url="https://hub.example/x")
            )
            raise RepositoryNotFoundError("x", response=response)
        files = [SimpleNamespace(rfilename=f.name, size=f.stat().st_size) for f in sorted(self.files.iterdir())]
        return SimpleNamespace(sha=COMMIT, siblings=files)

    def download(self, repo: str, **how: Any) -> str:
        if how.get("local_files_only"):
            if not self.snapshot.is_dir():
                raise LocalEntryNotFoundError("nothing")
            return str(self.snapshot)
        self.fetched.append({"repo": repo, **how})
        self.snapshot.mkdir(parents=True, exist_ok=True)
        for name in how["allow_patterns"]:
            if (self.files / name).exists() and not (self.snapshot / name).exists():
                (self.snapshot / name).symlink_to(self.files / name)
        return str(self.snapshot)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    files = make("bert", "lora-scratch").save(tmp_path / "on-the-hub")
    (files / "training_args.bin").write_bytes(b"a pickle")
    made = Hub(tmp_path, files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", made.info)
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return made


def test_a_hub_id_loads_like_a_folder(hub: Hub, tmp_path: Path) -> None:
    base = make("bert").base
    adapter = load_adapter("ann/spam@v1", base, verify=True)
    assert adapter.header == load_adapter(hub.files, base).header
    assert hub.asked[0]["revision"] == "v1" and hub.asked[0]["files_metadata"] is True
    (fetch,) = hub.fetched
    assert sorted(fetch["allow_patterns"]) == sorted(FILES) and len(FILES) == 3
    assert fetch["revision"] == COMMIT  # what was measured is what is fetched
    kept = tmp_path / "cache" / "adapters" / f"ann--spam@{COMMIT}"
    assert sorted(file.name for file in kept.iterdir()) == sorted(FILES)
    assert not any(file.is_symlink() for file in kept.iterdir())


def test_a_commit_that_is_here_asks_nobody(hub: Hub) -> None:
    first = adapter_folder("ann/spam")
    hub.asked.clear()
    assert adapter_folder(f"ann/spam@{COMMIT}") == first and hub.asked == []
    hub.out_of_reach = True
    assert adapter_folder("ann/spam") == first and len(hub.asked) == 1 and len(hub.fetched) == 1


def test_a_file_above_its_cap_is_not_fetched(hub: Hub) -> None:
    size = (hub.files / MODEL).stat().st_size
    with pytest.raises(AdapterNotFoundError, match=f"{MODEL} of ann/spam has {size:,} bytes, at most 1,000"):
        adapter_folder("ann/spam", file_cap=1000)
    (hub.files / "README.md").write_bytes(b" " * (1 << 21))
    with pytest.raises(AdapterNotFoundError, match=r"README.md of ann/spam has 2,097,152 bytes"):
        adapter_folder("ann/spam")
    assert hub.fetched == []


def test_a_file_above_its_cap_is_not_taken_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    """Another program may have fetched it; nor is it copied."""
    hub.download("ann/spam", allow_patterns=FILES)
    size = (hub.files / MODEL).stat().st_size
    for name, out_of_reach in ((f"ann/spam@{COMMIT}", False), ("ann/spam", True)):
        hub.out_of_reach = out_of_reach
        with pytest.raises(AdapterNotFoundError, match=f"{MODEL} of ann/spam has {size:,} bytes, at most 1,000"):
            adapter_folder(name, file_cap=1000)
    assert not (tmp_path / "cache").exists() and len(hub.asked) == 1
    assert adapter_folder("ann/spam").is_dir()


def test_what_is_missing_or_unknown_there(hub: Hub) -> None:
    with pytest.raises(AdapterNotFoundError, match=r"no folder 'ann/smap'.*there is no repository 'ann/smap'"):
        adapter_folder("ann/smap")
    (hub.files / "README.md").unlink()  # for people only
    assert load_adapter("ann/spam", make("bert").base)
    (hub.files / "adapter_config.json").unlink()
    (hub.snapshot / "adapter_config.json").unlink()
    with pytest.raises(AdapterNotFoundError, match=r"came without adapter_config\.json"):
        adapter_folder("ann/spam@other")


def test_what_was_fetched_is_not_trusted(hub: Hub) -> None:
    data = (hub.files / MODEL).read_bytes()
    (hub.files / MODEL).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(AdapterFormatError, match="changed or damaged"):
        load_adapter("ann/spam", make("bert").base)


def test_folders_come_first_and_slips_of_the_pen_are_not_sent(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for place in ("mine", "mine/spma", "./mine/spam", str(tmp_path / "no"), "no", "a/b/c", "ann\\spam", "mine/.."):
        assert adapter_folder(place) == Path(place)
    assert hub.asked == []
    assert adapter_folder(Path("ann/spam")).name == f"ann--spam@{COMMIT}"
    (tmp_path / "ann" / "spam").mkdir(parents=True)
    assert adapter_folder("ann/spam") == Path("ann/spam")
