"""The SMS Spam Collection: 5,574 real text messages, fetched from its public address and held to its digest.

Almeida, Gómez Hidalgo and Yamakami, "Contributions to the study of SMS spam filtering", 2011; UCI Machine
Learning Repository, data set 228, CC BY 4.0. No copy is part of this project.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from lora_clf.data.archive import open_zip, read_member
from lora_clf.data.cache import cache_folder, write_whole
from lora_clf.data.reader import SMS_MEMBER
from lora_clf.errors import DownloadError

URLS = ("https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",)
SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
FILE_VARIABLE = "LORA_CLF_SMS_SPAM"
LICENCE = "CC BY 4.0"
ATTRIBUTION = "SMS Spam Collection, T. Almeida and J. M. Gómez Hidalgo, UCI Machine Learning Repository, data set 228"
LARGEST_DOWNLOAD = 4_000_000  # bytes; the zip has 203,415
LARGEST_MEMBER = 2_000_000  # bytes; the file has 477,907
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 300.0  # seconds in all

Progress = Callable[[int, int | None], None]


def locate(
    *,
    cache: Path | None = None,
    urls: Sequence[str] = URLS,
    schemes: Sequence[str] = ("https",),
    progress: Progress | None = None,
) -> Path:
    """The file ``SMSSpamCollection`` (or a zip of it) on this machine, fetched when it is not here.

    In order: what the variable ``LORA_CLF_SMS_SPAM`` names; the cache, if its bytes are right; the addresses
    one after the other. ``progress`` is called with the bytes so far and in all. Raises DownloadError with
    one line that says what to do instead.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise DownloadError(f"{FILE_VARIABLE} names {path.name!r}, and there is no such file. Correct or unset it.")
        return path
    kept = (cache or cache_folder()) / "sms-spam" / SMS_MEMBER
    if kept.is_file() and is_genuine(kept.read_bytes()):
        return kept
    failures = []
    for url in urls:
        try:
            data = collection(download(url, schemes=schemes, progress=progress))
        except DownloadError as error:
            failures.append(str(error))
            continue
        try:
            write_whole(kept, data)
        except OSError as error:
            raise DownloadError(
                f"The SMS Spam Collection was fetched but not kept: {error.strerror or error}. "
                f"Set LORA_CLF_CACHE to a folder that can be written."
            ) from error
        return kept
    raise DownloadError(
        f"The SMS Spam Collection could not be fetched: {' '.join(failures)} "
        f"Point --data (or {FILE_VARIABLE}) to the file SMSSpamCollection or its zip, or use --data demo, "
        f"which needs no network."
    )


def is_genuine(data: bytes) -> bool:
    """Whether these are the bytes of the collection as it was published."""
    return hashlib.sha256(data).hexdigest() == SHA256


def collection(archive: bytes) -> bytes:
    """The one member ``SMSSpamCollection`` of the downloaded zip, held to its SHA-256."""
    try:
        with open_zip(archive) as opened:
            data = read_member(opened, opened.getinfo(SMS_MEMBER), LARGEST_MEMBER)
    except KeyError:
        raise DownloadError(f"The zip has no member {SMS_MEMBER!r}.") from None
    except zipfile.BadZipFile as error:
        raise DownloadError(f"What came is not the zip that was asked for ({error}).") from error
    if len(data) > LARGEST_MEMBER:
        raise DownloadError(f"{SMS_MEMBER} in the zip is over {LARGEST_MEMBER:,} bytes; expected 477,907.")
    if not is_genuine(data):
        came = hashlib.sha256(data).hexdigest()
        raise DownloadError(f"{SMS_MEMBER} has SHA-256 {came}; expected {SHA256}. It was not kept.")
    return data


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only: one to plain http would let anybody on the way choose the bytes."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith("https://"):
            raise DownloadError(f"{_host(req.full_url)} redirects to an address that is not https; refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    *,
    schemes: Sequence[str] = ("https",),
    largest: int = LARGEST_DOWNLOAD,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> bytes:
    """The bytes at ``url``, whole, at most ``largest`` of them; through the proxy the environment names."""
    if url.partition("://")[0].lower() not in schemes:
        raise DownloadError(f"The address {url!r} does not begin with {schemes[0]}://; refused.")
    opener = urllib.request.build_opener(_SecureRedirects)
    opener.addheaders = [("User-Agent", "lora-clf")]
    give_up = time.monotonic() + LONGEST
    try:
        with opener.open(url, timeout=timeout) as answer:
            announced = answer.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdecimal() else None
            if total is not None and total > largest:
                raise DownloadError(f"{_host(url)} offers {total:,} bytes; at most {largest:,} are expected.")
            received = bytearray()
            while piece := answer.read(65_536):
                received += piece
                if len(received) > largest:
                    raise DownloadError(f"{_host(url)} sent more than {largest:,} bytes; refused.")
                if time.monotonic() > give_up:
                    raise DownloadError(f"{_host(url)} was still sending after {LONGEST:.0f} seconds; given up.")
                if progress is not None:
                    progress(len(received), total)
    except DownloadError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(_explained(url, error)) from error
    if total is not None and len(received) != total:
        raise DownloadError(f"{_host(url)} cut the transfer off after {len(received):,} of {total:,} bytes.")
    return bytes(received)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _explained(url: str, error: Exception) -> str:
    """One sentence on why an address could not be read; a proxy is named by its variable only."""
    host = _host(url)
    through = next((name for name in ("HTTPS_PROXY", "https_proxy") if os.environ.get(name)), None)
    proxy = f" through the proxy that {through} names" if through else ""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == 407:
            return f"The proxy{f' of {through}' if through else ''} wants a user name and password (407)."
        return f"{host} answered {error.code} {_shown(error.reason)}{proxy}."
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return f"{host} cannot be found{proxy}: this machine seems to be offline."
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"The certificate of {host} is not trusted{proxy} (for a proxy's own one set SSL_CERT_FILE)."
    if isinstance(reason, TimeoutError):
        return f"{host} did not answer in time{proxy}."
    if isinstance(reason, ConnectionRefusedError):
        return f"{'The proxy' if through else host} refused the connection{proxy}."
    return f"{host} cannot be reached{proxy} ({_shown(reason)})."


def _shown(said: object) -> str:
    """What a server said, or something about it: on one short line, without what would move a terminal's cursor."""
    text = " ".join(str(said).split())[:100]
    return text if text.isprintable() else ascii(text)[1:-1]
