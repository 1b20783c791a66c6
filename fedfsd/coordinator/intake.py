"""What a region offers, checked before a byte of it is taken: its entry, the proofs, and whose ledger it is.

A release is taken when its entry is in the ledger that was confirmed at enrolment (inclusion), when that
ledger extends what the witness remembers (consistency), and when the entry is about this very round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.coordinator.folder import Coordinator
from fedfsd.errors import RefusedError
from fedfsd.ledger import entry, note
from fedfsd.ledger.disk import write_whole
from fedfsd.ledger.entry import Genesis
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.merkle import leaf_hash, verify_inclusion
from fedfsd.ledger.witness import Shown, Witness
from fedfsd.plan.plan import Plan


@dataclass(frozen=True)
class Offered:
    """A release whose entry and proofs were checked; its bytes may come."""

    plan: str
    round: int
    sha256: str
    size: int
    entry: str
    """Hash of its entry in the region's ledger."""
    cosigned: str = ""

    def is_same(self, other: Offered | None) -> bool:
        """Whether both are about the same bytes under the same entry."""
        return other is not None and _case(self) == _case(other)


def offered(release: pb.Release) -> Offered:
    """What a message offers, nothing of it checked yet."""
    return Offered(
        release.plan.hex(), release.round, release.sha256.hex(), release.size, leaf_hash(release.entry).hex()
    )


class Intake:
    """The checks of one coordinator; it remembers every region's newest head."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._witness = Witness(coordinator.folder, coordinator.key)
        self._heads = coordinator.folder / "heads"
        self._heads.mkdir(exist_ok=True)

    def position(self, region: str) -> tuple[int, int]:
        """(epoch, size) of the newest head seen of the ledger that the region was enrolled with."""
        ledger = self._coordinator.node_key(region).name.rpartition("/")[2]
        return self._witness.position(region, ledger)

    def release(self, region: str, plan: Plan, release: pb.Release) -> str:
        """The offered head, cosigned, once entry and proofs hold.

        Raises:
            EvidenceError, RefusedError: one of them does not; nothing is remembered of the head.
            NotReadyError: the disk is full.
        """
        found = entry.parse(release.entry)
        if not isinstance(found, entry.Release):
            raise EvidenceError("entry", got=f"an entry {found.type}", expected="a release")
        asked = Offered(found.plan, found.round, found.sha256, found.bytes, leaf_hash(release.entry).hex())
        schema = canonical.digest([one.model_dump(mode="json") for one in plan.model.arrays])
        for what, got, expected in (
            ("plan", asked.plan, release.plan.hex()),
            ("round", asked.round, release.round),
            ("sha256", asked.sha256, release.sha256.hex()),
            ("bytes", asked.size, release.size),
            ("seq", found.seq, release.seq),
            ("schema", found.schema_, schema),
            ("destination", found.destination, self._coordinator.key.name),
        ):
            if got != expected:
                raise RefusedError(
                    f"entry: {what}", got="another one", expected=f"the {what} of this release"
                )
        shown = wire.shown(release.head)
        head = self._own(region, shown)
        leaf = leaf_hash(release.entry)
        if not verify_inclusion(leaf, release.seq, head.size, tuple(release.inclusion), head.root):
            raise EvidenceError("entry", got="no proof that the head covers it", expected="its proof")
        return self._accept(region, shown)

    def show(self, region: str, head: pb.Head) -> str:
        """A head, cosigned. Errors as of ``release``."""
        shown = wire.shown(head)
        self._own(region, shown)
        return self._accept(region, shown)

    def _own(self, region: str, shown: Shown) -> note.Checkpoint:
        """The shown head, if it is of the ledger whose keys were confirmed for this region."""
        head = note.Checkpoint.parse(note.Note.parse(shown.checkpoint).text)
        node, officer = self._coordinator.node_key(region), self._coordinator.officer_key(region)
        if head.origin != node.name and not head.origin.startswith(node.name + "/"):
            raise RefusedError(
                f"ledger of {region}",
                got="a ledger other than the confirmed one",
                expected=node.name,
                hint=f"if it is new, confirm it: fedfsd coordinator invite {region}",
            )
        if self.position(region) == (0, 0):
            for statement in shown.statements:
                one = entry.parse(statement.content)
                if isinstance(one, Genesis) and (one.node_key, one.officer_key) != (str(node), str(officer)):
                    raise RefusedError(
                        f"ledger of {region}", got="a genesis with other keys", expected="those confirmed"
                    )
        return head

    def _accept(self, region: str, shown: Shown) -> str:
        cosigned = self._witness.accept(shown, seconds=int(time.time()))
        write_whole(self._heads / f"{region}.note", cosigned.encode())
        return cosigned


def is_fork(error: Exception) -> bool:
    """Whether an error of ``Intake`` shows two histories of one ledger."""
    return isinstance(error, EvidenceError) and "does not extend" in str(error.got)


def _case(one: Offered) -> tuple[str, int, str, int, str]:
    return one.plan, one.round, one.sha256, one.size, one.entry
