"""Flags about interruptions, and the line that says how to go on after one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from lora_clf.cli.failure import Interrupted
from lora_clf.cli.flags import Flags
from lora_clf.cli.output import note
from lora_clf.errors import CheckpointError, TrainingError

if TYPE_CHECKING:
    from lora_clf.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class CheckpointFlags(Flags):
    """What is kept while a run lasts, and going on from it."""

    panel: ClassVar[str] = "Interruption"

    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="N|TIME",
            help="Keep a checkpoint beside --out every N steps (100) or after a time (60s, 5m); 0 only on Ctrl-C. "
            "A head that is solved for (head-only without --lr) needs none.",
        ),
    ] = "60s"
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint of the same command.")
    ] = False

    def checkpoints(self, adapter: Path, *, force: bool) -> Checkpoints:
        """Where the checkpoints go of a run whose adapter goes to ``adapter``.

        Raises:
            UsageError: ``--checkpoint-every`` is neither a number of steps nor a time.
            CheckpointError: an interrupted run left some, and neither ``--resume`` nor ``--force`` was given.
        """
        from lora_clf.training.checkpoints import Checkpoints, check_unfinished, checkpoints_beside

        folder = checkpoints_beside(adapter)
        replace = force and not self.resume
        found = Checkpoints(folder, self.checkpoint_every, resume=self.resume, replace=replace, tell=note)
        if not (self.resume or force):
            check_unfinished(folder)
        return found


@contextmanager
def going_on(checkpoints: Checkpoints, words: Sequence[str]) -> Iterator[None]:
    """A context for the run: what ends it early is followed by the command that goes on, where something is kept.

    Args:
        checkpoints: of the run.
        words: the command line, without the program.
    """
    from lora_clf.training.checkpoints import generations, standing

    folder = Path(checkpoints.folder)
    command = shlex.join(["lora-clf", *(word for word in words if word != "--resume"), "--resume"])
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = bool(generations(folder))
        raise Interrupted(f"Interrupted{standing(folder)}. Go on with: {command}" if kept else "") from interrupt
    except (CheckpointError, TrainingError):
        raise  # which say what to do
    except Exception:
        if generations(folder):
            note(f"What was trained until the checkpoint{standing(folder)} is kept. Go on with: {command}")
        raise
