"""Which keys a ledger says were in force when."""

from __future__ import annotations

from dataclasses import dataclass

from fedfsd.audit.evidence import Ledger
from fedfsd.ledger import key
from fedfsd.ledger.entry import KeyRotate
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey
from fedfsd.ledger.note import Note

NO_GENESIS = "no genesis to start from"


@dataclass(frozen=True)
class Keyring:
    """Keys with the first number at which each counts: a checkpoint's size, an entry's ``seq``."""

    nodes: tuple[tuple[int, VerificationKey], ...]
    officers: tuple[tuple[int, VerificationKey], ...]

    def node_at(self, size: int) -> VerificationKey:
        """The key that signs checkpoints of ``size``."""
        return [one for start, one in self.nodes if start <= size or start == 1][-1]

    def signed(self, note: Note, *at: int) -> bool:
        """Whether one of the node's keys (or that of a size) signed ``note`` and no line of theirs is bad."""
        keys = [self.node_at(size) for size in at] or [one for _, one in self.nodes]
        try:
            return note.signed_by_one_of(keys)
        except EvidenceError:
            return False

    def officer_at(self, seq: int) -> VerificationKey:
        """The key that signs entry ``seq``."""
        return [one for start, one in self.officers if start <= seq][-1]


def keyring(ledger: Ledger) -> Keyring | None:
    """The keys of the genesis and of every rotation; None without a genesis."""
    genesis = ledger.genesis
    if genesis is None:
        return None
    nodes, officers = [(1, key.parse(genesis.node_key))], [(0, key.parse(genesis.officer_key))]
    for one in ledger.signed:
        if isinstance(one, KeyRotate):
            (nodes if one.role == "node" else officers).append((one.seq + 1, key.parse(one.key)))
    return Keyring(tuple(nodes), tuple(officers))
