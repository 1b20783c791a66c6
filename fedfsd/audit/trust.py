"""The trust file: public keys that the auditor obtained out of band (FORMAT.md, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fedfsd.errors import ConfigError
from fedfsd.ledger import key
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey

MAX_TRUST = 2**20
Role = Literal["node", "officer", "coordinator", "witness"]


@dataclass(frozen=True)
class Trust:
    """Whose keys are believed to be whose."""

    keys: tuple[tuple[Role, VerificationKey], ...]

    def of(self, role: Role, name: str | None = None) -> tuple[VerificationKey, ...]:
        """The keys of a role, of one name only where it is given."""
        return tuple(one for kind, one in self.keys if kind == role and name in (None, one.name))


def read(path: Path) -> Trust:
    """The keys in a trust file, each once. ConfigError names the first line that is not one."""
    with path.open("rb") as file:
        content = file.read(MAX_TRUST + 1)
    if len(content) > MAX_TRUST:
        raise ConfigError(path.name, got="a longer file", expected=f"at most {MAX_TRUST} bytes")
    try:
        lines = [line.removesuffix("\r") for line in content.decode().split("\n")]
    except UnicodeDecodeError:
        raise ConfigError(path.name, got="other bytes", expected="UTF-8 text") from None
    rows = ((f"{path.name} line {number}", line) for number, line in enumerate(lines, 1))
    found = [_line(line, place) for place, line in rows if line and not line.startswith("#")]
    return Trust(tuple(dict.fromkeys(found)))


def _line(line: str, place: str) -> tuple[Role, VerificationKey]:
    word, _, text = line.partition(" ")
    for role in get_args(Role):
        if word == role:
            kind = key.COSIGNER if role == "witness" else key.SIGNER
            try:
                return role, key.parse(text, kind=kind)
            except EvidenceError as error:
                raise ConfigError(place, got=error.got, expected=error.expected) from None
    raise ConfigError(
        place,
        got="another line",
        expected=f"a role ({', '.join(get_args(Role))}), a space and a verification key",
        hint="fedfsd keys show prints such lines",
    )
