"""The trust file: public keys that reached the auditor by another way than the evidence (FORMAT.md, 8)."""

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

    def of(self, role: Role, prefix: str = "") -> tuple[VerificationKey, ...]:
        """The keys of a role whose names begin with ``prefix``."""
        return tuple(one for kind, one in self.keys if kind == role and one.name.startswith(prefix))


def read(path: Path) -> Trust:
    """The keys in a trust file. ConfigError names the first line that is not one."""
    with path.open("rb") as file:
        content = file.read(MAX_TRUST + 1)
    try:
        lines = content.decode().splitlines() if len(content) <= MAX_TRUST else None
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise ConfigError(path.name, got="no UTF-8 text or a long one", expected=f"up to {MAX_TRUST} bytes")
    found: list[tuple[Role, VerificationKey]] = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            one = _line(line, f"{path.name} line {number}")
            if one in found:
                raise ConfigError(f"{path.name} line {number}", got="a key again", expected="each key once")
            found.append(one)
    return Trust(tuple(found))


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
