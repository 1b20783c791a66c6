"""A witness: it remembers the newest head of every region's ledger and cosigns only what extends it.

Coordinators and other regions are witnesses. One sees heads, proofs and the officers' statements, not
the other entries. It refuses a second ledger of a region, or of a data set that another region's ledger
claimed, unless the officer closed the first.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter

from fedfsd.errors import RefusedError
from fedfsd.ledger import entry, key, note, strict
from fedfsd.ledger.disk import write_whole
from fedfsd.ledger.entry import (
    Close,
    Genesis,
    Grant,
    Hex32,
    Integer,
    KeyRotate,
    LedgerId,
    Recover,
    Text,
    Vkey,
)
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from fedfsd.ledger.state import State
from fedfsd.ledger.strict import Document

MEMORY = "witness.json"
MAX_MEMORY = 2**24


@dataclass(frozen=True)
class Statement:
    """An officer's entry with the proof that the shown head covers it."""

    seq: int
    content: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Shown:
    """What a region shows a witness: a head, that it extends the last one, and statements since then."""

    checkpoint: str
    consistency: tuple[bytes, ...]
    statements: tuple[Statement, ...]
    close: bytes | None = None
    """The officer's close of the region's earlier ledger, where there was one."""


class Seen(Document):
    """What is remembered of one region."""

    ledger: LedgerId
    epoch: Integer
    size: Integer
    root: Hex32
    node_key: Vkey
    officer_key: Vkey
    data_sets: tuple[Text, ...] = ()
    closed: bool = False


class _Memory(Document):
    regions: dict[str, Seen] = Field(default_factory=dict, max_length=10_000)


_ADAPTER = TypeAdapter(_Memory)


def show(state: State, checkpoint: str, *, epoch: int, size: int, close: bytes | None = None) -> Shown:
    """What a region with ``state`` shows a witness that has seen its first ``size`` entries."""
    head, _ = state.open_checkpoint(checkpoint)
    kept = min(state.epochs[epoch][0] if epoch < state.epoch else size, size, head.size)
    return Shown(
        checkpoint,
        tuple(state.tree.consistency(kept, head.size)),
        tuple(
            Statement(seq, content, tuple(state.tree.inclusion(seq, head.size)))
            for seq, content in state.statements
            if kept <= seq < head.size
        ),
        close,
    )


class Witness:
    """A witness whose memory is a file in ``folder``."""

    def __init__(self, folder: Path, signer: SigningKey) -> None:
        self.folder, self._key = folder, signer

    def position(self, region: str, ledger: str) -> tuple[int, int]:
        """(epoch, size) of the newest head seen of that ledger; (0, 0) before the first."""
        with self._memory() as memory:
            seen = memory.regions.get(region)
        return (seen.epoch, seen.size) if seen and seen.ledger == ledger else (0, 0)

    def accept(self, shown: Shown, *, seconds: int) -> str:
        """The shown checkpoint, cosigned; its head is remembered first. POSIX ``seconds``.

        Raises:
            EvidenceError: a head that does not extend the remembered one, or a bad signature or proof.
            RefusedError: a second ledger without a close, or a data set of another region's.
        """
        head = note.Checkpoint.parse(note.Note.parse(shown.checkpoint).text)
        with self._memory() as memory:
            region = head.origin.split("/")[1] if head.origin.count("/") >= 2 else ""
            seen = _follow(memory, region, shown, head)
            signed, _ = note.open_checkpoint(shown.checkpoint, key.parse(seen.node_key))
            name = key.parse(seen.node_key).name
            origin = f"{name}/{seen.epoch}" if seen.epoch else name
            _demand(signed.origin == origin, "another origin", origin)
            seen = seen.model_copy(update={"size": head.size, "root": head.root.hex()})
            changed = memory.model_copy(update={"regions": {**memory.regions, region: seen}})
            write_whole(self.folder / MEMORY, strict.encode(changed))
        return note.cosign(shown.checkpoint, self._key, seconds=seconds)

    @contextmanager
    def _memory(self) -> Iterator[_Memory]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / MEMORY
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = path.read_bytes() if path.exists() else strict.encode(_Memory())
            yield strict.read(_ADAPTER, content, place=MEMORY, limit=MAX_MEMORY)


def _follow(memory: _Memory, region: str, shown: Shown, head: note.Checkpoint) -> Seen:
    """What is known of the region once the statements are read and the head is proved to extend the last."""
    seen = memory.regions.get(region)
    for statement in shown.statements:
        leaf = leaf_hash(statement.content)
        proved = verify_inclusion(leaf, statement.seq, head.size, statement.proof, head.root)
        _demand(proved, "a statement that the head does not cover", "one with its proof")
        one = entry.parse(statement.content)
        _demand(one.seq == statement.seq, "a statement out of place", "its own number")
        if isinstance(one, Genesis):
            seen = _begin(region, seen, one, shown.close)
        elif seen is not None and (one.seq >= seen.size or isinstance(one, Recover)):
            seen = _read(memory, region, seen, one)
    if seen is None:
        raise EvidenceError("checkpoint", got="a ledger without its genesis", expected="the genesis first")
    extends = verify_consistency(seen.size, head.size, shown.consistency, bytes.fromhex(seen.root), head.root)
    _demand(extends or not seen.size, "a head that does not extend the last one", "one history")
    return seen


def _begin(region: str, earlier: Seen | None, one: Genesis, close: bytes | None) -> Seen:
    """A region's first ledger, or a later one after the officer closed the earlier."""
    if earlier is not None and one.ledger != earlier.ledger:
        ended = entry.parse(close) if close is not None else None
        by_officer = (
            isinstance(ended, Close)
            and ended.ledger == earlier.ledger
            and entry.is_signed(ended, "officer", key.parse(earlier.officer_key))
        )
        if not (earlier.closed or by_officer) or one.previous != earlier.ledger:
            raise RefusedError(
                f"ledger of {region}",
                got="a second ledger of this region",
                expected="the one seen before, or its close signed by the data officer",
                hint="continue the ledger, or recover it: fedfsd region recover",
            )
    elif earlier is not None:
        return earlier
    node, officer = key.parse(one.node_key), key.parse(one.officer_key)
    _demand(node.name == f"fedfsd/{region}/{one.ledger}", "another region's genesis", f"one of {region}")
    signed = entry.is_signed(one, "officer", officer) and entry.is_signed(one, "node", node)
    _demand(signed, "an unsigned genesis", "one signed by officer and node")
    return Seen(
        ledger=one.ledger,
        epoch=0,
        size=0,
        root="0" * 64,
        node_key=one.node_key,
        officer_key=one.officer_key,
    )


def _read(memory: _Memory, region: str, seen: Seen, one: entry.Entry) -> Seen:
    """What one more statement of the officer changes."""
    if not isinstance(one, Grant | KeyRotate | Recover | Close):
        raise EvidenceError("statement", got=f"an entry {one.type}", expected="an officer's statement")
    officer = key.parse(seen.officer_key)
    mine = one.ledger == seen.ledger and entry.is_signed(one, "officer", officer)
    _demand(mine, "a statement that the officer did not sign", f"one signed by {officer.name}")
    if isinstance(one, Recover):
        forward = one.epoch == seen.epoch + 1 and one.lost_size >= seen.size
        _demand(forward, "a recovery that forgets what was seen", f"lost_size of at least {seen.size}")
        if one.lost_size == seen.size and one.lost_root is not None:
            _demand(
                one.lost_root == seen.root, "a recovery from another history", "the root seen of that size"
            )
        # Beyond what was kept there is nothing to be consistent with; the charge is on the ledger.
        return seen.model_copy(update={"epoch": one.epoch, "size": seen.size if one.seq >= seen.size else 0})
    if isinstance(one, KeyRotate):
        _demand(entry.is_signed(one, "new", key.parse(one.key)), "a key that did not sign", "one that did")
        return seen.model_copy(update={f"{one.role}_key": one.key})
    if isinstance(one, Close):
        return seen.model_copy(update={"closed": True})
    for name, other in memory.regions.items():
        if name != region and not other.closed and one.data_set in other.data_sets:
            raise RefusedError(
                f"data set {one.data_set}",
                got=f"a label that the ledger of {name} holds",
                expected="a label of its own, or that ledger closed",
            )
    labels = tuple(sorted({*seen.data_sets, one.data_set}))
    return seen.model_copy(update={"data_sets": labels})


def _demand(holds: bool, got: str, expected: str) -> None:
    if not holds:
        raise EvidenceError("checkpoint", got=got, expected=expected)
