"""The model hub, as little of it as is needed: one snapshot of one repository, asked for briefly.

Only safetensors weights, config.json and tokenizer files at the top of a repository are fetched; of other
repositories the files that are asked for by name, each up to a size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lora_clf.errors import DownloadError

WANTED: Final = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
# Each of these is a tokenizer; so is a sentencepiece model, whatever its name.
TOKENIZERS: Final = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
PATIENCE: Final = 5.0  # seconds for the first answer

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cached(repo: str, revision: str | None, files: Iterable[str] = ()) -> Path | None:
    """Returns the folder of a whole snapshot that the Hub's own cache already holds, or None."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None
    return None if _missing(folder, files) else folder


def snapshot(repo: str, revision: str | None, files: Iterable[str] = (), into: Path | None = None) -> Path:
    """Returns the folder of a snapshot, fetching what is not in the Hub's own cache.

    Args:
        repo: "owner/name".
        revision: a branch, tag or commit; the main branch where it is None.
        files: exact names, where they are known.
        into: a folder to put the files in, in place of the Hub's own cache.

    Raises:
        DownloadError: no answer, no such repository or revision, no leave to read it, no safetensors weights,
            no tokenizer.
    """
    from huggingface_hub import HfApi, snapshot_download

    wanted = list(files) or list(WANTED)
    here = cached(repo, revision, files) if into is None else None
    if here is not None and revision is not None and _COMMIT.fullmatch(revision):
        return here  # a commit never changes, so there is nothing to ask

    def ask() -> Path:
        # One short question first: without an answer the download itself would ask again and again, for 23 s.
        HfApi().repo_info(repo, revision=revision, timeout=PATIENCE)
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns=["*/*"],
                local_dir=into,
                etag_timeout=PATIENCE,
            )
        )

    folder = _answer(ask, repo, revision, here)
    missing = _missing(folder, files)
    if missing:
        raise DownloadError(f"{repo} came without {', '.join(missing)}")
    return folder


def small_files(repo: str, revision: str | None, caps: Mapping[str, int], needed: Iterable[str]) -> Path:
    """Returns the folder, named by its commit, of a snapshot with a few files, none of which is large.

    Args:
        repo: "owner/name".
        revision: a branch, tag or commit; the main branch where it is None.
        caps: what is fetched, each file with the bytes that it may have.
        needed: those of them that have to be there.

    Raises:
        DownloadError: no answer, no such repository or revision, no leave to read it, a file that is missing or
            larger than its cap.
    """
    from huggingface_hub import HfApi, snapshot_download

    here = cached(repo, revision, needed)

    def check(sizes: Mapping[str, int | None]) -> None:
        for name, size in sizes.items():
            if size is None or size > caps[name]:
                shown = "an unknown number of" if size is None else f"{size:,}"
                raise DownloadError(f"{name} of {repo} has {shown} bytes, at most {caps[name]:,} are fetched")

    def checked(folder: Path) -> Path:
        # The cache has what other programs fetched too.
        check({name: (folder / name).stat().st_size for name in caps if (folder / name).is_file()})
        return folder

    if here is not None and revision is not None and _COMMIT.fullmatch(revision):
        return checked(here)

    def ask() -> Path:
        info: Any = HfApi().repo_info(repo, revision=revision, timeout=PATIENCE, files_metadata=True)
        check({file.rfilename: file.size for file in info.siblings or () if file.rfilename in caps})
        # The commit, not the branch: what was measured is what is fetched.
        return Path(snapshot_download(repo, revision=info.sha, allow_patterns=sorted(caps), etag_timeout=PATIENCE))

    folder = _answer(ask, repo, revision, here)
    if missing := _missing(folder, needed):
        raise DownloadError(f"{repo} came without {', '.join(missing)}")
    return checked(folder)


def _answer(ask: Callable[[], Path], repo: str, revision: str | None, here: Path | None) -> Path:
    """What ``ask`` returns; ``here`` where there is no answer: it may have moved on since, but better than nothing.

    Raises:
        DownloadError: one line for whatever the Hub's library raises.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return ask()
    except DownloadError:
        raise
    except GatedRepoError as error:
        raise DownloadError(f"{repo} asks for a licence to be accepted there, and for a token") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repo} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"there is no repository {repo!r}, or it is private") from error
    except Exception as error:
        # From here on it is the HTTP library's many errors; their texts hold addresses, so the kind must do.
        if here is not None:
            return here
        cause = error.__cause__ or error
        raise DownloadError(f"no answer: {type(cause).__name__}") from error


def _missing(folder: Path, files: Iterable[str] = ()) -> list[str]:
    """The files that a base needs and the folder lacks."""
    needed = list(files)
    if needed:
        return [name for name in needed if not (folder / name).is_file()]
    needed = ["config.json", "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            needed = ["config.json", *sorted({str(shard) for shard in shards})]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ["a readable model.safetensors.index.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS) and not any(
        folder.glob("*.model")
    ):
        missing.append("a tokenizer (tokenizer.json, or vocab.json with merges.txt, or vocab.txt)")
    return missing
