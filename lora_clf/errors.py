"""Every error this library raises on purpose, as one tree.

::

    LoraClfError                         one clear line; ``exit_status`` is what the command line returns
    ├── UsageError (ValueError)          a setting, a flag or a name is wrong            [exit 2]
    ├── DataError (ValueError)           a table cannot be used; ``problems`` lists every reason
    ├── DownloadError (OSError)          something had to be fetched and could not be
    ├── BaseError                        the shared base model
    │   ├── BaseNotFoundError (FileNotFoundError)
    │   └── UnsupportedBaseError (ValueError)
    ├── TunerError                       a strategy
    │   ├── TargetError (ValueError)     target modules that match nothing
    │   ├── StateError (ValueError)      names or shapes that do not fit; all of them listed
    │   └── NotMergeableError (TypeError)
    ├── AdapterError                     a saved adapter
    │   ├── AdapterNotFoundError (FileNotFoundError)
    │   ├── AdapterExistsError (FileExistsError)  another place is wanted               [exit 2]
    │   ├── AdapterFormatError (ValueError)
    │   └── WrongBaseError (ValueError)
    ├── TrainingError (RuntimeError)     a run that cannot go on (a loss that is not finite)
    └── CheckpointError (RuntimeError)   a checkpoint cannot be written, read or gone on from

Each message says what came, what was expected, what exists and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar


class LoraClfError(Exception):
    """The root of the tree: catch this to catch all of it."""

    exit_status: ClassVar[int] = 1


class UsageError(LoraClfError, ValueError):
    """A setting, a flag or a name is wrong; nothing was started."""

    exit_status: ClassVar[int] = 2


class DataError(LoraClfError, ValueError):
    """A table cannot be used.

    ``problems`` holds every reason found, one line each with its row number where it has one;
    the message shows the first ``SHOWN`` of them and how many more there are.
    """

    SHOWN: ClassVar[int] = 10

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        lines = [message, *(f"  {problem}" for problem in self.problems[: self.SHOWN])]
        if len(self.problems) > self.SHOWN:
            lines.append(f"  ... and {len(self.problems) - self.SHOWN} more")
        super().__init__("\n".join(lines))


class DownloadError(LoraClfError, OSError):
    """Something had to be fetched and could not be, or is not what it should be."""


class BaseError(LoraClfError):
    """Something is wrong with the shared base model."""


class BaseNotFoundError(BaseError, FileNotFoundError):
    """The base is neither on this machine nor within reach."""


class UnsupportedBaseError(BaseError, ValueError):
    """The base exists, but what was asked of it is not possible on its architecture."""


class TunerError(LoraClfError):
    """Something is wrong with a strategy or its state."""


class TargetError(TunerError, ValueError):
    """The targets of a strategy match no module of the base."""


class StateError(TunerError, ValueError):
    """A state does not fit the tuned model: every missing, unexpected or misshapen name at once."""

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)
        parts = [
            f"{kind}: {', '.join(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
            if names
        ]
        super().__init__("; ".join([message, *parts]))


class NotMergeableError(TunerError, TypeError):
    """The strategy changes the computation in a way that plain weights cannot hold."""


class AdapterError(LoraClfError):
    """Something is wrong with a saved adapter."""


class AdapterNotFoundError(AdapterError, FileNotFoundError):
    """There is no adapter at that place."""


class AdapterExistsError(AdapterError, FileExistsError):
    """There is something at that place already, and overwriting was not asked for."""

    exit_status: ClassVar[int] = 2  # as where a table is there already: the command asks for what it does not get


class AdapterFormatError(AdapterError, ValueError):
    """The folder is not a whole, unchanged adapter that this version can read."""


class WrongBaseError(AdapterError, ValueError):
    """The adapter was trained on another base or with another tokenizer."""


class TrainingError(LoraClfError, RuntimeError):
    """A run cannot go on."""


class CheckpointError(LoraClfError, RuntimeError):
    """A checkpoint cannot be written or read, or belongs to another run."""


def unknown(kind: str, came: str, exists: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: says what came, the nearest name, and all that exist."""
    names = sorted(exists)
    near = get_close_matches(came, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"Unknown {kind} {came!r}.{hint} There are: {', '.join(names) or 'none'}.")
