"""Tests reach no network and no cache but their own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


def test_the_network_is_out_of_reach() -> None:
    with pytest.raises(RuntimeError, match="tests have no network"):
        socket.create_connection(("192.0.2.1", 443), timeout=1)  # an address kept for documentation
    with pytest.raises(RuntimeError, match="tests have no network"):
        socket.getaddrinfo("example.org", 443)


def test_this_machine_is_within_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_the_cache_is_temporary(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert Path(os.environ["LORA_CLF_CACHE"]).is_relative_to(tmp_path_factory.getbasetemp())
