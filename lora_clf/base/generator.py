"""The program's one random generator, which threads share: who draws from it or seeds it holds the lock."""

from __future__ import annotations

from threading import Lock

GENERATOR = Lock()
