"""A run of a comparison that goes on where a killed one stood, with the bytes of one that nobody killed.

Its checkpoints lie beside its place, under its name and the beginning of its digest: what was begun with other
settings, data, code or threads is never gone on from.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lora_clf.errors import CheckpointError

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.base.reading import Reading
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.result import Progress, Result
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners.base import Tuner

DIGITS: Final = 16  # of the digest
ENDING: Final = ".checkpoints"


def checkpoints_of(folder: Path, digest: str) -> Path:
    """Where the checkpoints lie of the run with this ``digest`` whose result goes to ``folder``; those of others go.

    Args:
        folder: of the result, which need not be there.
        digest: of the cell or the trial.
    """
    mine = folder.with_name(f"{folder.name}.{digest[:DIGITS]}{ENDING}")
    others = re.compile(rf"{re.escape(folder.name)}\.[0-9a-f]{{{DIGITS}}}{re.escape(ENDING)}")
    if folder.parent.is_dir():
        for path in folder.parent.iterdir():
            if others.fullmatch(path.name) and path != mine:
                shutil.rmtree(path, ignore_errors=True)
    return mine


def train_on(
    base: Base,
    data: Dataset,
    tuner: Tuner,
    settings: TrainSettings,
    reading: Reading,
    place: Path,
    every: int | str,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Train, from the newest checkpoint at ``place`` that is whole, else from the start.

    The checkpoints stay until their run's result is on the disk: whoever writes it removes them.

    Args:
        base: as the others but ``place`` and ``every``: of `lora_clf.training.loop.train`.
        data: the same.
        tuner: the same.
        settings: the same.
        reading: the same.
        place: of the checkpoints, this run's own.
        every: steps or a time, as of `lora_clf.training.checkpoints.Checkpoints`.
        progress: called after every step.

    Raises:
        CheckpointError: another process is at the same run, or nothing can be written there.
    """
    from lora_clf.training.checkpoints import Checkpoints
    from lora_clf.training.loop import train

    try:
        going_on = Checkpoints(place, every, resume=True)
        return train(base, data, tuner, settings, reading=reading, progress=progress, checkpoints=going_on)
    except CheckpointError:  # none is whole: the run is not lost, only what it had done
        anew = Checkpoints(place, every, replace=True)
        return train(base, data, tuner, settings, reading=reading, progress=progress, checkpoints=anew)
