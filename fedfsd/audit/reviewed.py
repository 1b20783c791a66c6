"""The list of reviewed programs: hashes that somebody read the code of (FORMAT.md, section 9)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedfsd.audit.finding import Finding, contradiction, undecided
from fedfsd.errors import ConfigError
from fedfsd.language import say

MAX_CODE = 2**20
_LINE = re.compile(r"([A-Za-z0-9._-]{1,128}) ([^\s]{1,128}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Reviewed:
    """The hashes that somebody reviewed, by the name of what they are of."""

    hashes: Mapping[str, frozenset[str]]

    def judge(self, place: str, name: str, version: str, sha256: str) -> Iterator[Finding]:
        """A contradiction where another hash of that name was reviewed, and undecided where none was."""
        known = self.hashes.get(name)
        if known is None:
            yield undecided(place, say("no {name} is in the list of reviewed code", name=name))
        elif sha256 not in known:
            yield contradiction(
                place,
                say("{name} {version} with hash {sha256}", name=name, version=version, sha256=sha256),
                say("a reviewed one"),
            )


def read(path: Path) -> Reviewed:
    """The list in a file of lines ``<name> <version> <sha256>``. ConfigError names the first other line."""
    with path.open("rb") as file:
        content = file.read(MAX_CODE + 1)
    try:
        lines = content.decode().splitlines() if len(content) <= MAX_CODE else None
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise ConfigError(path.name, got="no UTF-8 text or a long one", expected=f"up to {MAX_CODE} bytes")
    found: dict[str, set[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{path.name} line {number}",
                got="another line",
                expected="name, version and SHA-256, one space between",
                hint="fedfsd config code prints such lines",
            )
        found.setdefault(match[1], set()).add(match[3])
    return Reviewed({name: frozenset(hashes) for name, hashes in found.items()})
