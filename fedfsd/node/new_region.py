"""A new region: its folder, its node's key, and the genesis for the officer to sign."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedfsd.config.experiment import REGION_PATTERN
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.ledger import draft, entry, key
from fedfsd.ledger.entry import Genesis
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.ledger import NODE_KEY
from fedfsd.node import template
from fedfsd.node.node import SETTINGS, Node, open_node, private

TRAIN = "train.toml"
RESERVED = "coordinator"  # its keys would be called like a coordinator's


@dataclass(frozen=True)
class Declared:
    """What a new region's people say of it; what is left out, they fill in later."""

    roster: int | None = None
    """N: training vehicle keys."""
    identity: Literal["physical", "recording"] | None = None
    recipient: str = ""
    """The name of the coordinator's key."""
    purpose: str = ""
    """Of the transfers."""
    proxy: str = ""
    """An HTTP proxy on the way to the coordinator."""


def make(
    name: str,
    folder: Path,
    *,
    mirror: Path | None,
    officer: VerificationKey,
    previous: str | None = None,
    declared: Declared = Declared(),
) -> tuple[Node, Genesis]:
    """Make ``folder`` with settings, policy and the node's key; the ledger begins when its genesis is added.

    Args:
        mirror: a folder on another disk; without it, one inside ``folder``.
        officer: the public key of the data officer, whose private one stays elsewhere.
        previous: the id of the region's earlier ledger, which was closed.
        declared: what is known already of what policy and settings say.

    Returns:
        The region, and its genesis, signed by the node and not yet by the officer.

    Raises:
        UsageError: no name for a region, another region's officer.
        NotReadyError: there is something in ``folder`` already, or no folder for the mirror.
    """
    if not re.fullmatch(REGION_PATTERN, name) or name == RESERVED:
        raise UsageError(
            "NAME", got=name, expected="up to 32 letters, digits, - and _, a letter first", hint="such as EU"
        )
    if officer.name != f"fedfsd/{name}/officer":
        raise UsageError(
            "--officer-vkey",
            got=f"the key {officer.name}",
            expected=f"fedfsd/{name}/officer",
            hint=f"fedfsd keys new fedfsd/{name}/officer -o officer.key",
        )
    _demand_new(folder)
    node = draft.node_key(name)
    made = draft.genesis(node=node.verification, officer=officer, previous=previous)
    place = _mirror(mirror) / f"{name}-{made.ledger[:8]}.jsonl"
    made = entry.sign(made, {"node": node})
    _write(folder, name, place, node, declared)
    return open_node(folder), made


def rebuild(folder: Path, mirror: Path, *, name: str) -> Node:
    """A folder for a region of which only the mirror is left; its keys and salts are lost."""
    _demand_new(folder)
    _write(folder, name, mirror.absolute(), None, Declared())
    return open_node(folder)


def officer_of(text: str, *, place: str = "--officer-vkey") -> VerificationKey:
    """The officer's public key: the key itself, or a file with it, as printed by ``fedfsd keys show``.

    Raises:
        UsageError: neither.
    """
    try:
        path = Path(text)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [text]
    except (OSError, UnicodeDecodeError):
        lines = []
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    try:
        return key.parse(words[0][-1] if len(words) == 1 else "", kind=key.SIGNER)
    except EvidenceError as error:
        raise UsageError(
            place,
            got="no public key",
            expected=f"{error.expected}, or a file with such a line",
            hint="fedfsd keys show prints it",
        ) from None


def on_one_disk(node: Node) -> bool:
    """Whether ledger and mirror would be lost together."""
    return node.mirror.parent.exists() and node.mirror.parent.stat().st_dev == node.folder.stat().st_dev


def _demand_new(folder: Path) -> None:
    named = folder.name not in ("", "..")
    if not named or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise NotReadyError(
            str(folder), got="an existing file or folder", expected="a new folder", hint="choose another -o"
        )


def _mirror(mirror: Path | None) -> Path:
    """The mirror's folder as the settings name it."""
    if mirror is None:
        return Path("mirror")
    if not mirror.is_dir() or not os.access(mirror, os.W_OK) or not str(mirror.absolute()).isprintable():
        raise NotReadyError(
            str(mirror),
            got="no writable folder",
            expected="a folder on another disk",
            hint="mount the disk, or choose another --mirror",
        )
    return mirror.absolute()


def start_train(node: Node, folder: Path, *, data: Path) -> None:
    """Make the runner's ``folder``, which names the data and the gate's socket.

    Repeating it for the same data changes nothing.

    Raises:
        NotReadyError: ``folder`` was made for other data, or there is something else in it.
    """
    socket = (node.folder / node.settings.border.socket).absolute()
    shipped = data.name == str(data) and not data.exists()  # the name of tables inside fedfsd
    path = str(data if shipped else data.absolute())
    text = template.train(name=node.settings.name, data_path=path, socket=str(socket))
    written = _data_path(folder / TRAIN)
    if written == path:
        return
    if written is not None:
        raise NotReadyError(
            "--data",
            got="a path that differs from data_path in the runner's folder",
            expected="the same path, or none",
            hint=f"change data_path in {folder / TRAIN}",
        )
    _demand_new(folder)
    with private():
        (folder / "keys").mkdir(parents=True)
        (folder / TRAIN).write_text(text, encoding="utf-8")


def _data_path(written: Path) -> str | None:
    """The data_path of a train.toml; None where there is none."""
    try:
        return str(tomllib.loads(written.read_text(encoding="utf-8"))["data_path"])
    except (OSError, ValueError, KeyError):
        return None


def _write(folder: Path, name: str, mirror: Path, node: SigningKey | None, declared: Declared) -> None:
    """The folder, whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    with private():
        shutil.rmtree(part, ignore_errors=True)
        for inner in ("ledger", "keys", "salts", "heads", "drafts"):
            (part / inner).mkdir(parents=True)
        if not mirror.is_absolute():
            (part / mirror.parent).mkdir()
        text = template.settings(
            name=name,
            mirror=str(mirror),
            recipient=declared.recipient,
            purpose=declared.purpose,
            proxy=declared.proxy,
        )
        (part / SETTINGS).write_text(text, encoding="utf-8")
        text = template.policy(name=name, roster=declared.roster, identity=declared.identity)
        (part / "policy.toml").write_text(text, encoding="utf-8")
        if node is not None:
            node.write(part / "ledger" / NODE_KEY)
        part.replace(folder)
