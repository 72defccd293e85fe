"""The model hub, as little of it as is needed: one snapshot of one repository, asked for briefly.

Only safetensors weights, config.json and tokenizer files at the top of a repository are fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

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
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = list(files) or list(WANTED)
    here = cached(repo, revision, files) if into is None else None
    if here is not None and revision is not None and _COMMIT.fullmatch(revision):
        return here  # a commit never changes, so there is nothing to ask
    try:
        # One short question first: without an answer the download itself would ask again and again, for 23 s.
        HfApi().repo_info(repo, revision=revision, timeout=PATIENCE)
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns=["*/*"],
                local_dir=into,
                etag_timeout=PATIENCE,
            )
        )
    except GatedRepoError as error:
        raise DownloadError(f"{repo} asks for a licence to be accepted there, and for a token") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repo} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"there is no repository {repo!r}, or it is private") from error
    except Exception as error:
        # From here on it is the HTTP library's many errors; their texts hold addresses, so the kind must do.
        if here is not None:
            return here  # a branch that may have moved on since, but better than nothing
        cause = error.__cause__ or error
        raise DownloadError(f"no answer: {type(cause).__name__}") from error
    missing = _missing(folder, files)
    if missing:
        raise DownloadError(f"{repo} came without {', '.join(missing)}")
    return folder


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
