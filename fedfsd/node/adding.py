"""A signed paper becomes an entry; what it changes outside the ledger is done here too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from fedfsd import canonical
from fedfsd.errors import BudgetError, FedfsdError, NotReadyError
from fedfsd.ledger import digest, entry, restore
from fedfsd.ledger.entry import Genesis, KeyRotate, PlanEntry, Recover, Signed
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import NODE_KEY, Ledger
from fedfsd.ledger.state import State
from fedfsd.ledger.store import DATABASE
from fedfsd.node import run_key
from fedfsd.node.node import Node, private
from fedfsd.plan import plan as plans

PENDING_KEY = "node.key.pending"  # a new key that waits for the officer's signature


def add(node: Node, papers: Sequence[Signed]) -> list[int]:
    """Append ``papers`` and return their numbers; of one that is in the ledger already, its number there.

    Where one is refused, those before it stay added, and the same file can be added again.

    Raises:
        EvidenceError: not signed as required, or no longer allowed at this position.
        BudgetError: it does not fit what is left.
        RefusedError: a plan outside the policy.
        NotReadyError: a plan or a key that this folder did not draft, or a ledger that cannot be opened.
    """
    try:
        with private():
            return [_add(node, paper) for paper in papers]
    except EvidenceError as error:
        raise EvidenceError(
            error.place,
            got=error.got,
            expected=error.expected,
            hint="have it signed with fedfsd region sign, or draft it again",
        ) from None


def _add(node: Node, paper: Signed) -> int:
    if (known := _known(node, paper)) is not None:
        return known
    if isinstance(paper, Genesis):
        return _begin(node, paper)
    if isinstance(paper, Recover):
        return _recover(node, paper)
    if isinstance(paper, KeyRotate) and paper.role == "node":
        return _rotate(node, paper)
    with closing(node.open_ledger()) as ledger:
        return _plan(node, ledger, paper) if isinstance(paper, PlanEntry) else ledger.add(paper)


def settled(node: Node, state: State) -> None:
    """Destroy the run keys of plans that have ended: a run key would allow removing the noise."""
    for plan, run in state.runs.items():
        if run.settled:
            run_key.forget(node, plan)


def _known(node: Node, paper: Signed) -> int | None:
    """The number of this very paper, signatures included, where it is in the ledger already.

    None for plans and permissions, which have rules of their own for coming twice.
    """
    try:
        with closing(node.open_ledger()) as ledger:
            there = [entry.parse(content) for _, content in ledger.state.statements]
    except NotReadyError:  # none yet, or one that waits for this paper
        return None
    return next((one.seq for one in there if one == paper.model_copy(update={"seq": one.seq})), None)


def _begin(node: Node, paper: Genesis) -> int:
    signing = SigningKey.read(node.ledger / NODE_KEY)
    if paper.node_key != str(signing.verification):
        raise NotReadyError(
            "genesis",
            got="the key of a different node",
            expected=signing.name,
            hint="add the genesis drafted here",
        )
    if (node.ledger / DATABASE).exists():
        raise NotReadyError(
            str(node.ledger),
            got="an existing ledger",
            expected="none yet",
            hint="an empty folder: a genesis is added only once",
        )
    if node.mirror.exists():
        raise NotReadyError(
            str(node.mirror),
            got="an existing mirror",
            expected="none yet",
            hint="fedfsd region recover, where the ledger was lost",
        )
    Ledger.create(node.ledger, mirror=node.mirror, genesis=paper, node=signing).close()
    return 0


def _plan(node: Node, ledger: Ledger, paper: PlanEntry) -> int:
    plan = plans.read(canonical.encode(paper.document).decode())
    node.declared_policy().demand(plan, node.settings.name)
    mine = run_key.commitment(node, plan.hash) if plan.mode == "private" else None
    if (paper.key_commitment, paper.code) != (mine, digest.code()):
        raise NotReadyError(
            f"plan {paper.plan[:8]}",
            got="a draft from a different folder or program version",
            expected="a draft made with this folder's run key and this program",
            hint="run fedfsd region approve PLAN again",
        )
    try:
        return ledger.add(paper)
    except BudgetError:
        ledger.refuse(paper.plan, None, "budget")
        raise


def _rotate(node: Node, paper: KeyRotate) -> int:
    pending, current = node.ledger / PENDING_KEY, node.ledger / NODE_KEY
    new = SigningKey.read(pending) if pending.exists() else None
    if new is None or str(new.verification) != paper.key:
        raise NotReadyError(
            PENDING_KEY,
            got="no key, or a different one",
            expected="the private part of the new key",
            hint="fedfsd region rotate drafts a rotation with a key of this folder",
        )
    if not current.exists():  # lost: the ledger opens with the key it is about to name
        new.write(current)
    with closing(node.open_ledger()) as ledger:
        ledger.rotate(paper, new)
        pending.unlink()
        return ledger.state.size - 1


def _recover(node: Node, paper: Recover) -> int:
    """Where the mirror is lost, the new one appears only once the ledger has charged for what was lost."""
    lost = not node.mirror.exists()
    mirror = node.mirror.with_name(node.mirror.name + ".new") if lost else node.mirror
    if lost:
        mirror.unlink(missing_ok=True)
        restore.new_mirror(node.ledger, mirror)
    if not (node.ledger / NODE_KEY).exists():  # lost too: one that signs nothing until the officer rotates it
        SigningKey.generate(f"fedfsd/{node.settings.name}/{paper.ledger}").write(node.ledger / NODE_KEY)
    try:
        with closing(Ledger(node.ledger, mirror=mirror)) as ledger:
            seq = ledger.add(paper)
            settled(node, ledger.state)
    except FedfsdError:
        if lost:
            mirror.unlink()
        raise
    if lost:
        mirror.replace(node.mirror)
    return seq
