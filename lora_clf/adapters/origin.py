"""Where an adapter lies: a folder as it stands, or a repository of the Hub, brought into a folder first."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from lora_clf.adapters.disk import write_in_place_of
from lora_clf.adapters.file import CARD, CONFIG, FILE_CAP, FILES, MODEL
from lora_clf.adapters.safetensors_file import HEADER_CAP
from lora_clf.base import hub
from lora_clf.data.cache import cache_folder
from lora_clf.errors import AdapterError, AdapterNotFoundError, DownloadError

_HUB_ID: Final = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def adapter_folder(place: Path | str, *, file_cap: int = FILE_CAP) -> Path:
    """The folder of the adapter at ``place``, fetched from the Hub where that names a repository there.

    A folder on this machine comes first. Of a repository only the three files of an adapter are fetched, none above
    its cap; what they hold is checked when it is read, like that of any folder.

    Args:
        place: a folder, or "owner/name", or "owner/name@revision".
        file_cap: the largest file of tensors that is fetched, in bytes.

    Raises:
        AdapterNotFoundError: neither here nor on the Hub, or the Hub is out of reach.
        AdapterError: what was fetched cannot be kept.
    """
    name = os.fspath(place)
    found = _HUB_ID.fullmatch(name)
    # The folder of my-adapters/smap is here: that is a slip of the pen, and nothing to ask the Hub about.
    if found is None or os.path.lexists(name) or os.path.isdir(name.split("/")[0]):
        return Path(place)
    repository, revision = found["repo"], found["revision"]
    caps = {MODEL: file_cap, CONFIG: HEADER_CAP, CARD: HEADER_CAP}
    try:
        snapshot = hub.small_files(repository, revision, caps, (MODEL, CONFIG))
    except DownloadError as error:
        raise AdapterNotFoundError(
            f"There is no folder {name!r}, and the Hub does not give an adapter of that name ({error})."
        ) from error
    # A folder of our own, since that of the Hub's library holds links, which are never followed.
    folder = cache_folder() / "adapters" / f"{repository.replace('/', '--')}@{snapshot.name}"
    if not folder.is_dir():
        try:
            contents = {name: (snapshot / name).read_bytes() for name in FILES if (snapshot / name).is_file()}
            write_in_place_of(folder, contents, replace=False)
        except OSError as error:
            if not folder.is_dir():  # another process may have been faster
                raise AdapterError(
                    f"The adapter {name} could not be kept: {error.strerror or error}. Set LORA_CLF_CACHE to a "
                    "folder that can be written."
                ) from error
    return folder
