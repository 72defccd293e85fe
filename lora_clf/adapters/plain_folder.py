"""Where plain weights may be written: a free place, or one that holds what was written by us; never the base's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lora_clf.adapters.file import CARD, CONFIG, FILES
from lora_clf.adapters.rules import is_name
from lora_clf.base.transformers_folder import TOKENIZER_FILES
from lora_clf.errors import AdapterExistsError, UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

HEAD_FOLDER: Final = "head"
"""Where `merge` puts the adapter, inside the new base's folder."""

TAG: Final = "lora-clf"
"""The tag in the page of an exported folder."""

_WEIGHTS: Final = ("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json")
_TOP: Final = 4096  # bytes of a page in which its tags stand


def check_free_model(folder: Path, *, force: bool = False) -> None:
    """Refuse a place where a model must not be written, before time is spent on it.

    Raises:
        AdapterExistsError: there is something already, and ``force`` is not set or it is not what is written here.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise AdapterExistsError(f"{folder} is a file. Choose another place.")
    there = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    if others := sorted(str(path) for path in there if not _known(path)):
        raise AdapterExistsError(
            f"{folder} holds other files than such a model has ({', '.join(others[:3])}), so nothing is written there. "
            "Choose another folder."
        )
    if there and not _ours(folder):
        raise AdapterExistsError(
            f"{folder} holds a model that neither `lora-clf adapters merge` nor `lora-clf adapters export` wrote, so "
            "nothing is written there. Choose another folder."
        )
    if there and not force:
        raise AdapterExistsError(f"There is a model in {folder}. Choose another folder, or use --force.")


def check_apart(folder: Path, base: Base) -> None:
    """Refuse the folder of ``base``, one in it and one around it: what is written there would destroy the base.

    Raises:
        UsageError: it is one of these.
    """
    if base.folder is None:
        return
    target, own = (Path(os.path.realpath(path)) for path in (folder, base.folder))
    if _within(target, own) or _within(own, target):
        raise UsageError(
            f"{folder} is where the adapter's base lies ({base.name}), or in it or around it; other adapters need that "
            "base as it is. Choose another folder."
        )


def check_base_name(folder: Path) -> None:
    """Refuse a folder whose name no base can have.

    Raises:
        UsageError: it has such a name.
    """
    if not is_name(name := folder.resolve().name):
        raise UsageError(
            f"{name!r}: the folder's name becomes the base's name, so it must not begin like a path, with '.' or '~'. "
            "Choose another one."
        )


def _known(path: Path) -> bool:
    if len(path.parts) == 2:
        return path.parts[0] == HEAD_FOLDER and path.name in FILES
    return len(path.parts) == 1 and any(path.match(name) for name in (*_WEIGHTS, *TOKENIZER_FILES, CARD, "*.jinja"))


def _ours(folder: Path) -> bool:
    """Whether `merge` or `export` wrote the folder: a head lies in it, or its page has our tag."""
    if (folder / HEAD_FOLDER / CONFIG).is_file():
        return True
    try:
        with (folder / CARD).open("rb") as file:
            top = file.read(_TOP).decode("utf-8", errors="replace")
    except OSError:
        return False
    start, *parts = top.split("---\n", 2)
    return start == "" and len(parts) == 2 and f"- {TAG}" in parts[0].splitlines()


def _within(path: Path, folder: Path) -> bool:
    """Whether ``path`` is ``folder`` or lies in it, also where the file system takes two spellings for one name."""
    above = (path, *path.parents)
    return folder in above or (folder.exists() and any(each.exists() and each.samefile(folder) for each in above))
