"""What a witness's newest checkpoint says about this copy of the ledger: is it the newest, and the same?"""

from __future__ import annotations

from fedfsd.errors import NotReadyError
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.mirror import RECOVER
from fedfsd.ledger.note import Checkpoint, Note
from fedfsd.ledger.state import State


def check(state: State, text: str) -> None:
    """Refuse to run behind, or beside, a checkpoint that this node once signed.

    Raises:
        NotReadyError: the checkpoint covers more entries than this copy has, or other ones.
        EvidenceError: it is not this ledger's checkpoint at all.
    """
    parsed = Note.parse(text)
    seen = Checkpoint.parse(parsed.text)
    epochs = {state.origin(epoch): epoch for epoch in range(state.epoch + 1)}
    signed = any(parsed.signed_by(key) for key in state.node_keys)
    if seen.origin not in epochs or not signed:
        if seen.origin.startswith(state.origin(0) + "/") and signed:
            raise behind(seen.size, state.size)  # of an epoch that this copy has not reached
        raise EvidenceError(
            "checkpoint", got="another ledger's or an unsigned one", expected="one of this ledger"
        )
    epoch = epochs[seen.origin]
    kept, lost = state.epochs[epoch] if epoch < state.epoch else (state.size, state.size)
    if seen.size > lost:
        raise behind(seen.size, lost)
    if seen.size <= kept and seen.root != state.tree.root(seen.size):
        raise NotReadyError(
            "ledger",
            got=f"another history than the one a witness holds of its first {seen.size} entries",
            expected="one history",
            hint="stop this region: the ledger was changed, or its key is used twice",
        )


def behind(seen: int, size: int) -> NotReadyError:
    """This copy is older than what a witness holds."""
    return NotReadyError(
        "ledger",
        got=f"{size} entries where a witness has seen {seen}",
        expected="the newest copy: an older one would forget what was spent",
        hint=RECOVER,
    )
