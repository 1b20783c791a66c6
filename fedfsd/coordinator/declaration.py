"""What regions declare: N and what their vehicle keys stand for, so that nobody types it at the coordinator.

It is in regions/NAME/declaration.json, as the region's policy said when its gate connected last.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fedfsd import canonical, formats
from fedfsd.config.load import Frozen
from fedfsd.coordinator.folder import Coordinator
from fedfsd.ledger.disk import write_whole

FILE = "declaration.json"


class Declaration(Frozen):
    """What every plan must state of one region."""

    format: Literal[1] = 1
    roster: Annotated[int, Field(ge=1)]
    identity: Literal["physical", "recording"]


def keep(coordinator: Coordinator, region: str, made: Declaration) -> bool:
    """Write it down; whether it says something new. NotReadyError: a full disk."""
    if read(coordinator, region) == made:
        return False
    write_whole(coordinator.region(region) / FILE, canonical.encode(made.model_dump()))
    return True


def read(coordinator: Coordinator, region: str) -> Declaration | None:
    """What the region declared last. FormatError where a newer release wrote it."""
    try:
        content = (coordinator.region(region) / FILE).read_bytes()
        formats.demand_known("declaration", formats.peek(content), place=f"declaration of {region}")
        return Declaration.model_validate_json(content)
    except (OSError, ValidationError):
        return None
