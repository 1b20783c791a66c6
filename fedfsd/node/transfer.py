"""Permission to transfer, drafted for the officer."""

from __future__ import annotations

from contextlib import closing

from fedfsd.errors import BudgetError
from fedfsd.ledger import strict
from fedfsd.ledger.entry import Approval
from fedfsd.node.node import Node


def permission(
    node: Node,
    *,
    data_set: str | None,
    authority: str,
    number: str,
    models: tuple[str, ...],
    valid: tuple[str, str],
    max_releases: int,
    max_bytes: int,
) -> Approval:
    """An approval for the recipient and purpose of the settings; ``valid`` are its first and last day.

    Raises:
        BudgetError: no grant for the data set, or several to choose from.
        ConfigError: a value that an approval cannot have, or no recipient in the settings.
    """
    recipient, purpose = node.settings.transfer_to()
    with closing(node.open_ledger()) as ledger:
        state = ledger.state
    labels = list(state.accounts)
    label = labels[0] if data_set is None and len(labels) == 1 else data_set
    if label not in labels:
        raise BudgetError(
            "--data-set",
            got=data_set or f"{len(labels)} data sets with a grant",
            expected="one of: " + (", ".join(labels) or "none yet"),
            hint="fedfsd region grant comes first" if not labels else f"--data-set {labels[0]}",
        )
    with strict.typed("approval"):
        return Approval(
            ledger=state.genesis.ledger,
            data_set=label,
            authority=authority,
            number=number,
            recipient=recipient,
            purpose=purpose,
            models=models,
            valid_from=valid[0],
            valid_until=valid[1],
            max_releases=max_releases,
            max_bytes=max_bytes,
        )
