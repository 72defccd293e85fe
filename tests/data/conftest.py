"""The real SMS file, for the tests of the data room."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sms_file(shared: Path) -> Path:
    return shared / "data" / "sms_spam" / "SMSSpamCollection"


@pytest.fixture(scope="session")
def sms_texts(sms_file: Path) -> list[str]:
    lines = sms_file.read_text(encoding="utf-8").split("\n")
    return [line.split("\t", 1)[1] for line in lines if line]
