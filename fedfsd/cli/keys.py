"""``fedfsd keys``: Ed25519 keys of officers, coordinators and witnesses; only public parts are ever shown."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.errors import UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.ledger.key import SigningKey


class Role(StrEnum):
    """What a key is for, as a trust file says it."""

    node = "node"
    officer = "officer"
    coordinator = "coordinator"
    witness = "witness"


def new(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write the key to.")
    ],
    _json: Json = False,
) -> Answer:
    """Make a key: the private part in FILE (mode 0600), the public part beside it.

    The public part of officer.key is officer.vkey. NAME is fedfsd/REGION/officer for a data officer,
    fedfsd/coordinator/NAME for a coordinator; a witness chooses any name without spaces. A node's key is made
    by fedfsd region init.
    """
    from fedfsd.ledger.error import EvidenceError
    from fedfsd.ledger.key import SigningKey

    if not output.name or output.is_dir():
        raise UsageError("-o", got="a folder, or no name", expected="a new file", hint="-o officer.key")
    public = output.with_suffix(".vkey")
    if public == output or public.exists():
        raise UsageError(
            "-o",
            got=f"{plain(output)}, whose public part would be {plain(public)}",
            expected="a new file for each part",
            hint="-o officer.key in another folder",
        )
    try:
        made = SigningKey.generate(name)
    except EvidenceError as error:
        raise UsageError(
            "NAME", got=repr(name)[:60], expected=error.expected, hint="such as fedfsd/EU/officer"
        ) from None
    made.write(output)
    answer = _answer(made, output, None)
    public.write_text(f"{answer.document['trust_line']}\n", encoding="utf-8")
    text = f"the private key is in {plain(output)}: keep it where nobody else can read it"
    text += f"\nthe public key is in {plain(public)}, for everybody else:\n{answer.text}"
    return Answer({**answer.document, "public_file": str(public)}, text)


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    role: Annotated[
        Role | None, typer.Option(help="The role of the key, if its name does not show it.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Print the public key as a line for a trust file.

    Whoever is to trust this key puts the line into their trust.keys. The private key is never shown.
    """
    from fedfsd.ledger.key import SigningKey

    return _answer(SigningKey.read(file), file, role)


def role_of(name: str) -> Role:
    """What a key of that name is for."""
    if re.fullmatch(r"fedfsd/coordinator/[^/]+", name):
        return Role.coordinator
    if re.fullmatch(r"fedfsd/[^/]+/officer", name):
        return Role.officer
    return Role.node if re.fullmatch(r"fedfsd/[^/]+/[0-9a-f]{32}", name) else Role.witness


def _answer(key: SigningKey, file: Path, role: Role | None) -> Answer:
    role = role or role_of(key.name)
    vkey = str(key.cosigner if role == Role.witness else key.verification)
    line = f"{role.value} {vkey}"
    document = {"name": key.name, "role": role.value, "vkey": vkey, "trust_line": line, "file": str(file)}
    return Answer(document, plain(line))


COMMANDS = (("new", new, "fedfsd/EU/officer -o officer.key"), ("show", show, "officer.key > officer.vkey"))
