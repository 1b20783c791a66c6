"""A region's folder, read: its settings, its policy, and the way to its ledger.

| in the folder | what |
|---|---|
| region.toml, policy.toml | what a person edits |
| ledger/ | the ledger, the node's private key, the outbox |
| keys/ | the secret key of every open plan, in a region without a runner's folder |
| salts/ | what opens the commitments to data sets |
| heads/ | checkpoints of this ledger from witnesses, ``*.note``: compared at each start |
| drafts/ | documents on their way to the data officer and back |
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedfsd.config.load import load
from fedfsd.errors import NotReadyError
from fedfsd.gate.policy import Policy, declared
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.ledger import NODE_KEY, Ledger
from fedfsd.ledger.mirror import RECOVER
from fedfsd.ledger.note import Note
from fedfsd.ledger.store import DATABASE
from fedfsd.node.settings import RegionSettings
from fedfsd.service.owner import private

__all__ = ["SETTINGS", "Node", "open_node", "private"]

SETTINGS = "region.toml"


@dataclass(frozen=True)
class Node:
    """One region's folder and what its settings say."""

    folder: Path
    settings: RegionSettings

    @property
    def ledger(self) -> Path:
        """The folder of the ledger, the node's key and the outbox."""
        return self.folder / "ledger"

    @property
    def mirror(self) -> Path:
        """The ledger's second copy."""
        return self.folder / self.settings.mirror

    @property
    def keys(self) -> Path:
        """The folder of run keys."""
        return self.folder / "keys"

    @property
    def salts(self) -> Path:
        """The folder of what opens the commitments to data sets."""
        return self.folder / "salts"

    @property
    def drafts(self) -> Path:
        """Default folder of documents for the officer."""
        return self.folder / "drafts"

    def policy(self) -> Policy:
        """What this region allows, as far as it is filled in. ConfigError where the file is wrong."""
        return load(Policy, self.folder / self.settings.policy)

    def declared_policy(self) -> Policy:
        """The policy in force here. ConfigError if it lacks something or allows what no region may."""
        place = str(self.folder / self.settings.policy)
        return declared(self.policy(), place, test_only=self.settings.border.test_only)

    def heads(self) -> list[str]:
        """The checkpoints that witnesses gave; whose they are is not checked yet.

        Raises:
            NotReadyError: a file among them that is no note: nothing here is passed over in silence.
        """
        found = []
        for path in sorted((self.folder / "heads").glob("*.note")):
            try:
                found.append(str(Note.parse(path.read_bytes())))
            except EvidenceError as error:
                raise NotReadyError(
                    str(path), got=error.got, expected="a checkpoint", hint="ask the witness for it again"
                ) from None
        return found

    def demand_ledger(self) -> None:
        """NotReadyError where there is no ledger yet."""
        if not (self.ledger / DATABASE).exists():
            raise NotReadyError(
                str(self.ledger),
                got="no ledger",
                expected="one that began with a signed genesis",
                hint="fedfsd region add the signed genesis; fedfsd region recover where the ledger was lost",
            )

    def open_ledger(self) -> Ledger:
        """The ledger, if it is the newest copy.

        Raises:
            NotReadyError: none yet, its key is lost, damaged, or an older copy than mirror or witnesses know.
        """
        self.demand_ledger()
        if not (self.ledger / NODE_KEY).exists():
            raise NotReadyError(
                NODE_KEY,
                got="no such file",
                expected=f"the node's private key in {self.ledger}",
                hint="fedfsd region rotate replaces a lost key",
            )
        try:
            return Ledger(self.ledger, mirror=self.mirror, heads=self.heads())
        except sqlite3.Error as error:
            raise NotReadyError(DATABASE, got=error, expected="an undamaged ledger", hint=RECOVER) from None


def open_node(folder: Path, *, overrides: Iterable[str] = ()) -> Node:
    """The region in ``folder``. NotReadyError where there is none, ConfigError where its file is wrong."""
    path = folder / SETTINGS
    if not path.exists():
        raise NotReadyError(
            str(path),
            got="no such file",
            expected="a region's folder",
            hint="fedfsd region init makes one; --region names it",
        )
    return Node(folder, load(RegionSettings, path, overrides=overrides))
