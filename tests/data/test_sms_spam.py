from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lora_clf.data import sms_spam
from lora_clf.data.cache import cache_folder, write_whole
from lora_clf.data.dataset import load_data
from lora_clf.errors import DownloadError

LOCAL = ("http", "https")


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Server(HTTPServer):
    answers: dict[str, bytes]
    asked: list[str]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", self.server.url("/good"))
            self.end_headers()
            return
        if self.path not in self.server.answers:
            self.send_error(404)
            return
        body = self.server.answers[self.path]
        self.send_response(200)
        if self.path == "/cut":
            self.send_header("Content-Length", str(len(body) + 1000))
        elif self.path != "/unannounced":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(sms_spam.FILE_VARIABLE, raising=False)
    running = Server(("127.0.0.1", 0), Handler)
    running.answers, running.asked = {}, []
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def good(server: Server, sms_file: Path) -> Server:
    server.answers["/good"] = zipped(SMSSpamCollection=sms_file.read_bytes(), readme=b"about it")
    return server


def test_it_is_fetched_once_and_kept(good: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    urls = [good.url("/missing"), good.url("/good")]
    path = sms_spam.locate(cache=tmp_path, urls=urls, schemes=LOCAL, progress=lambda *now: seen.append(now))
    assert sms_spam.is_genuine(path.read_bytes())
    assert seen[-1] == (len(good.answers["/good"]),) * 2
    assert sms_spam.locate(cache=tmp_path, urls=urls, schemes=LOCAL) == path
    assert good.asked == ["/missing", "/good"]
    assert [entry.name for entry in path.parent.iterdir()] == ["SMSSpamCollection"]


def test_a_damaged_cache_is_fetched_anew(good: Server, tmp_path: Path) -> None:
    kept = tmp_path / "sms-spam" / "SMSSpamCollection"
    write_whole(kept, b"ham\tnot the real one\n")
    assert sms_spam.locate(cache=tmp_path, urls=[good.url("/good")], schemes=LOCAL) == kept
    assert sms_spam.is_genuine(kept.read_bytes())


def wrong_answers(server: Server) -> None:
    real_looking = b"ham\thello\nspam\twin\n" * 10
    server.answers["/digest"] = zipped(SMSSpamCollection=real_looking)
    server.answers["/cut"] = zipped(SMSSpamCollection=real_looking)
    server.answers["/member"] = zipped(other=real_looking)
    server.answers["/html"] = b"<html>Please log in</html>"
    server.answers["/bomb"] = zipped(SMSSpamCollection=b"0" * (sms_spam.LARGEST_MEMBER + 10))
    server.answers["/large"] = b"0" * (sms_spam.LARGEST_DOWNLOAD + 1)
    server.answers["/unannounced"] = b"0" * (sms_spam.LARGEST_DOWNLOAD + 100_000)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/digest", "has SHA-256 .* expected 7d039a24"),
        ("/cut", r"cut the transfer off after \d+ of [\d,]+ bytes"),
        ("/member", "no member 'SMSSpamCollection'"),
        ("/html", "not the zip that was asked for"),
        ("/bomb", "over 2,000,000 bytes"),
        ("/large", "offers 4,000,001 bytes"),
        ("/unannounced", "sent more than 4,000,000 bytes"),
        ("/redirect", "redirects to an address that is not https"),
        ("/missing", "answered 404"),
    ],
)
def test_a_wrong_answer_is_explained_and_not_kept(server: Server, tmp_path: Path, path: str, words: str) -> None:
    wrong_answers(server)
    with pytest.raises(DownloadError, match=words) as caught:
        sms_spam.locate(cache=tmp_path, urls=[server.url(path)], schemes=LOCAL)
    message = str(caught.value)
    assert "\n" not in message and "Point --data" in message and "--data demo" in message
    assert list(tmp_path.rglob("*")) == []


def test_only_https_by_default(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="does not begin with https://"):
        sms_spam.locate(cache=tmp_path, urls=[server.url("/good"), "file:///etc/hostname"])
    assert server.asked == []
    assert all(url.startswith("https://") for url in sms_spam.URLS)


def test_nobody_there_and_a_proxy(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=rf"127\.0\.0\.1:{port} refused the connection\."):
        sms_spam.locate(cache=tmp_path, urls=[server.url("/good")], schemes=LOCAL)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
    with pytest.raises(DownloadError, match=r"The proxy refused the connection through .* HTTPS_PROXY") as caught:
        sms_spam.locate(cache=tmp_path, urls=["https://example.invalid/sms.zip"])
    assert "secret" not in str(caught.value)


def test_the_variable_names_a_file(
    server: Server, sms_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sms_spam.FILE_VARIABLE, str(sms_file))
    assert sms_spam.locate(cache=tmp_path, urls=[]) == sms_file
    assert len(load_data("sms-spam", protocol="random").train) == 3902
    archive = tmp_path / "sms.zip"
    archive.write_bytes(zipped(SMSSpamCollection=sms_file.read_bytes()))
    monkeypatch.setenv(sms_spam.FILE_VARIABLE, str(archive))
    assert load_data("sms-spam", protocol="random").name == "sms-spam"
    monkeypatch.setenv(sms_spam.FILE_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(DownloadError, match="LORA_CLF_SMS_SPAM names 'nothing'"):
        sms_spam.locate(cache=tmp_path, urls=[])


def test_a_cache_that_cannot_be_written(good: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"fetched but not kept.*LORA_CLF_CACHE"):
        sms_spam.locate(cache=tmp_path / "file", urls=[good.url("/good")], schemes=LOCAL)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LORA_CLF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "lora_clf"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [entry.name for entry in tmp_path.iterdir()] == ["a"]
