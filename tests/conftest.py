"""What every test gets: no network, no pickle, one thread, a fixed seed and a cache of its own."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

REAL_CACHE = os.environ.get("LORA_CLF_CACHE")

# Read by the libraries when they are imported, so set before anything imports them. The threads: results must
# not depend on how many cores a machine has, and tiny models are fastest on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PIP_NO_INDEX"] = "1"  # child processes are beyond the reach of the blocked socket below
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ["LORA_CLF_CACHE_SIZE"] = "0"  # no run finds states that another test left on disk; tests of that ask for it

import ipaddress  # noqa: E402
import socket  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests import pickles  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]


class NetworkBlocked(RuntimeError):
    """Not an OSError on purpose: the library turns those into its own errors, and the test would pass."""


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):  # the path of a Unix socket
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"", "localhost"}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end: no collection of garbage need go through it, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            real = getattr(socket.socket, name)

            def blocked(self, address, _real=real):  # type: ignore[no-untyped-def]
                if not _is_local(address):
                    raise NetworkBlocked(f"a test tried to connect to {address!r}; tests have no network")
                return _real(self, address)

            patch.setattr(socket.socket, name, blocked)
        real_lookup = socket.getaddrinfo

        def lookup(host, *args, **kwargs):  # type: ignore[no-untyped-def]
            if host is not None and not _is_local((host if isinstance(host, str) else host.decode(),)):
                raise NetworkBlocked(f"a test tried to look up {host!r}; tests have no network")
            return real_lookup(host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", lookup)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_pickle_in_children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", pickles.search_path())
        patch.setenv(pickles.FILE_VARIABLE, str(tmp_path_factory.mktemp("unpickled") / "found"))
        yield
        assert not pickles.told()


@pytest.fixture(autouse=True)
def _no_pickle() -> Iterator[None]:
    pickles.watch()
    pickles.found.clear()
    yield
    assert not pickles.told()  # also where something took the error for another


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_CLF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def real_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that wants the user's own cache, where the real base may lie."""
    if REAL_CACHE is None:
        monkeypatch.delenv("LORA_CLF_CACHE")
    else:
        monkeypatch.setenv("LORA_CLF_CACHE", REAL_CACHE)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        if torch.accelerator.is_available():
            torch.manual_seed(0)
        else:  # where that would note down a whole stack trace every time
            torch.default_generator.manual_seed(0)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons start no processes and draw no pictures."""
    from tests.inside import put

    put(monkeypatch)


@pytest.fixture(scope="module")
def all_inside() -> Iterator[None]:
    """As `inside`, for a whole file and the fixtures in it."""
    from tests.inside import put

    with pytest.MonkeyPatch.context() as patch:
        put(patch)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and tokenizers beside the repository, which is not part of it."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the real data sets, in a folder 'shared' beside the repository")
    return folder
