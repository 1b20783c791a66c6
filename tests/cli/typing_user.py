"""The command as a user types it, in an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedfsd.cli import main


@dataclass(frozen=True)
class Said:
    """What came out of one call."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout as the one JSON document it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The error of a failed --json call."""
        assert list(self.document) == ["error"]
        return self.document["error"]


Say = Callable[..., Said]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The empty folder a command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fedfsd(folder, capfd, monkeypatch) -> Say:
    """Call the command in this process: ``fedfsd("config", "check", "x.toml")``."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    def call(*words: object) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main.run([str(word) for word in words])
        assert isinstance(end.value.code, int)
        return Said(end.value.code, *capfd.readouterr())

    return call
