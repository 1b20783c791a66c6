"""``fedfsd region coins``: open a plan's canaries to an auditor, once the plan is settled.

Before, nobody outside the runner needs them: that they stay secret is what a round's canaries are judged by.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pydantic import ValidationError

from fedfsd import canonical
from fedfsd.audit.coins import Coins
from fedfsd.errors import NotReadyError, PlanError, RefusedError
from fedfsd.ledger.digest import opened_commitment
from fedfsd.node import approve, separation
from fedfsd.node.node import Node
from fedfsd.plan import plan as plans


def opened(node: Node, train: Path, named: str) -> Coins:
    """The coins of a settled plan, as the runner keeps them and the plan's entry commits to them.

    Args:
        named: the plan, as for ``approve.find``.

    Raises:
        BudgetError: no such plan in the ledger.
        PlanError: a plan without canaries.
        NotReadyError: an open plan, coins that the runner does not have, or a user who cannot start one.
        RefusedError: other coins than those that the ledger commits to.
    """
    with closing(node.open_ledger()) as ledger:
        run = approve.find(ledger.state, named)
    name, plan = node.settings.name, run.entry.plan
    place = f"coins of plan {plan[:8]}"
    if not plans.read(canonical.encode(run.entry.document).decode()).region(name).canaries:
        raise PlanError(place, got="a plan without canaries", expected="[audit] canaries in its experiment")
    if not run.settled:
        raise NotReadyError(
            place,
            got="a plan whose rounds may go on",
            expected="a settled plan",
            hint=f"wait for its end, or fedfsd region settle {plan[:8]}",
        )
    try:
        found = Coins.model_validate(separation.coins(train, plan))
    except ValidationError:
        raise NotReadyError(place, got="a damaged file", expected="coins as the runner wrote them") from None
    said, kept = run.entry.key_commitment, opened_commitment(found.key, bytes.fromhex(found.seed))
    if (found.plan, found.region) != (plan, name) or said not in (None, kept):
        raise RefusedError(place, got="other coins", expected="those that the plan's entry commits to")
    return found
