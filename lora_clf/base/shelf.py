"""The bases that are on this machine already: those with a name in the catalogue, and the registered folders.

What finds a base by its digest begins here: nothing is fetched, and a base that cannot be the one (another
architecture, another width) is left out after a look at its config.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_clf.base import hub
from lora_clf.base.catalogue import CATALOGUE
from lora_clf.base.sources import MAX_CONFIG, cache_folder, entries, expanded, is_base, registered, split_name
from lora_clf.base.weights import read_config
from lora_clf.errors import LoraClfError, UsageError


def is_here(name: str) -> bool:
    """Whether `load_base` finds the base ``name`` without fetching anything."""
    if name not in CATALOGUE and is_base(expanded(name)):
        return True
    try:
        plain, revision = split_name(name, None)
    except UsageError:
        return False
    entry = CATALOGUE.get(plain)
    if entry is not None and revision in (None, entry.revision):
        return any(listed.here for listed in entries() if listed.name == plain)
    if revision is None and plain in dict(registered()):
        return True
    repository = entry.repo if entry is not None else plain
    return "/" in repository and hub.cached(repository, revision) is not None


def alike(architecture: str, width: int | None) -> Iterator[str]:
    """What `load_base` takes for each base here that has this ``model_type`` and width of its hidden states.

    Args:
        architecture: transformers' ``model_type``.
        width: of the vectors that a head gets; None: any.
    """
    for entry in CATALOGUE.values():
        folder = cache_folder(entry.name) if entry.files else hub.cached(entry.repo, entry.revision)
        if folder is not None and _is(folder, architecture, width):
            yield str(folder) if entry.files else entry.name
    seen = set()
    for _, folder in registered():
        place = folder.resolve()
        if place not in seen and _is(folder, architecture, width):
            yield str(folder)
        seen.add(place)


def _is(folder: Path, architecture: str, width: int | None) -> bool:
    from lora_clf.base.head import output_width

    file = folder / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > MAX_CONFIG:
            return False
        config = read_config(folder, folder.name)
    except (OSError, LoraClfError):
        return False
    return config.model_type == architecture and (width is None or output_width(config) == width)
