"""After a loss: the ledger from its mirror, the mirror from the ledger, or a backup at the worst case.

A copy alone does not show whether it is the newest. So a copy is used only if a second one agrees, or with
an entry, signed by the officer, that charges whatever may be missing.
"""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.ledger import draft, entry, head, restore, strict
from fedfsd.ledger.entry import Close, KeyRotate, Recover
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.ledger import NODE_KEY
from fedfsd.ledger.note import Checkpoint, Note
from fedfsd.ledger.state import State
from fedfsd.node import new_region, reading
from fedfsd.node.adding import PENDING_KEY
from fedfsd.node.node import Node, private


def from_mirror_alone(folder: Path, mirror: Path) -> tuple[Node, int]:
    """A new ``folder`` for a region of which only the mirror is left, and the number of entries.

    The node's key, the run keys and the salts are lost: the officer rotates the key, open plans are settled.

    Raises:
        NotReadyError: something in ``folder``, no mirror, or entries that break a rule.
    """
    lines = reading.mirrored(mirror)
    if not lines:
        raise NotReadyError(str(mirror), got="no mirror", expected="the mirror file of a ledger")
    state = reading.fold(lines)
    node = new_region.rebuild(folder, mirror, name=state.genesis.region)
    with private():
        restore.from_mirror(node.ledger, node.mirror)
    return node, state.size


def from_mirror(node: Node) -> int | None:
    """Build the ledger again from its mirror; None where both agree already.

    Returns:
        The number of entries brought back.

    Raises:
        NotReadyError: no mirror, one that contradicts the ledger or itself, or one that is old as well.
    """
    there, mirrored = reading.kept(node.ledger), reading.mirrored(node.mirror)
    if not mirrored:
        raise NotReadyError(
            str(node.mirror),
            got="no mirror",
            expected="the ledger's second copy",
            hint="--new-mirror if the ledger was never restored from a backup, --from-backup if it was",
        )
    known = there or []
    shared = min(len(known), len(mirrored))
    if known[:shared] != mirrored[:shared]:
        raise NotReadyError(
            str(node.mirror),
            got="a history that differs from the ledger's",
            expected="a single history",
            hint="stop this region: one of the two was modified; an audit of the bundles shows which",
        )
    _newest(node, reading.fold(known if len(known) > shared else mirrored))
    if len(known) >= len(mirrored):
        return None
    with private():
        restore.from_mirror(node.ledger, node.mirror)
    return len(mirrored) - len(known)


def new_mirror(node: Node) -> int:
    """Rebuild a lost mirror from a ledger that was never restored from a backup; the number of entries.

    Raises:
        NotReadyError: there is a mirror, no ledger, or a witness has seen more than the ledger has.
    """
    state = _kept(node)
    _newest(node, state)
    with private():
        node.mirror.parent.mkdir(parents=True, exist_ok=True)
        restore.new_mirror(node.ledger, node.mirror)
    return state.size


def from_backup(node: Node, *, reach: Literal["rounds", "unknown"], lost_size: int | None) -> Recover:
    """The entry, to be signed, with which a backup can continue (FORMAT.md, section 7).

    Args:
        reach: ``rounds`` where the officer will state that only rounds of known plans are lost.
        lost_size: the largest size known to have been seen, if ``heads/`` does not contain it.

    Raises:
        NotReadyError: no ledger, or a mirror that has more than the backup and can bring it back.
    """
    state = _kept(node)
    mirrored = reading.mirrored(node.mirror)
    if mirrored and len(mirrored) > state.size:
        raise NotReadyError(
            str(node.mirror),
            got=f"a mirror with {len(mirrored)} entries, the backup has {state.size}",
            expected="a lost mirror",
            hint="fedfsd region recover rebuilds the ledger from it, and nothing is charged",
        )
    seen = _seen(node, state)
    size = max([lost_size or 0, state.size, *seen])
    return draft.recover(state, lost_size=size, lost_root=seen.get(size), reach=reach)


def rotate(node: Node, *, officer: VerificationKey | None = None) -> KeyRotate:
    """A new key, to be signed by the officer: the node's, made here, or the given one for the officer.

    The old node key signs too where it is still there; without it the ledger opens again once this is added.
    """
    state = _kept(node)
    with strict.typed("key-rotate"):
        if officer is not None:
            return KeyRotate(ledger=state.genesis.ledger, role="officer", key=str(officer))
        new = SigningKey.generate(state.node.name)
        made = KeyRotate(ledger=state.genesis.ledger, role="node", key=str(new.verification))
    keys = {"new": new}
    if (node.ledger / NODE_KEY).exists():
        old = SigningKey.read(node.ledger / NODE_KEY)
        if old.verification == state.node:
            keys["old"] = old
    (node.ledger / PENDING_KEY).unlink(missing_ok=True)
    new.write(node.ledger / PENDING_KEY)
    return entry.sign(made, keys)


def close(node: Node, reason: str) -> Close:
    """The ledger's last entry, to be signed: nothing may follow it."""
    with closing(node.open_ledger()) as ledger, strict.typed("close"):
        return Close(ledger=ledger.state.genesis.ledger, reason=reason)


def _kept(node: Node) -> State:
    """The entries in the folder's ledger, though it may be outdated."""
    there = reading.kept(node.ledger)
    if not there:
        raise NotReadyError(
            str(node.ledger),
            got="no readable ledger",
            expected="a ledger",
            hint="fedfsd region recover",
        )
    return reading.fold(there)


def _newest(node: Node, state: State) -> None:
    """NotReadyError where a witness has seen more."""
    for text in node.heads():
        try:
            head.check(state, text)
        except NotReadyError as error:
            raise NotReadyError(
                error.place,
                got=error.got,
                expected=error.expected,
                hint="fedfsd region recover --from-backup, with the officer's signature",
            ) from None


def _seen(node: Node, state: State) -> dict[int, str]:
    """Size and root of every checkpoint of this epoch that a witness gave."""
    found = {}
    for text in node.heads():
        with suppress(FedfsdError):
            parsed = Note.parse(text)
            one = Checkpoint.parse(parsed.text)
            if one.origin == state.origin(state.epoch) and any(
                parsed.signed_by(key) for key in state.node_keys
            ):
                found[one.size] = one.root.hex()
    return found
