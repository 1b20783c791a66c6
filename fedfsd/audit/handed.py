"""Documents of one kind that an auditor is handed as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError, NotReadyError

D = TypeVar("D", bound=Frozen)


def read(kind: type[D], paths: Sequence[Path], *, most: int, what: str, source: str) -> tuple[D, ...]:
    """The documents in files.

    Args:
        most: bytes of one. what, source: what they are and where they come from, for people.

    Raises:
        NotReadyError: a file that cannot be read. ConfigError: one that is no such document.
    """
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise NotReadyError(str(path), got=error.strerror, expected=f"a file of {what}") from None
        try:
            if len(content) > most:
                raise ValueError
            found.append(kind.model_validate_json(content, strict=False))
        except ValueError:
            raise ConfigError(str(path), got=f"no document of {what}", expected=source) from None
    return tuple(found)
