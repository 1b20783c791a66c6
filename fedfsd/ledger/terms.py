"""What the ledger reads out of a plan's document, and nothing else (FORMAT.md, section 6).

The document stays an untyped object here: a ledger must be readable long after plans have new fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedfsd import canonical
from fedfsd.errors import PlanError
from fedfsd.ledger.entry import MAX_INTEGER
from fedfsd.ledger.error import EvidenceError
from fedfsd.mechanism import kind
from fedfsd.mechanism.kind import AnyPlan, AnyText, GaussianText, Mechanism

MAX_DIMENSIONS = 32
_Count = Annotated[int, Field(ge=1, le=10**6)]


@dataclass(frozen=True)
class Terms:
    """One region's side of a plan."""

    mode: Literal["private", "rehearsal"]
    task: str
    model: str
    rounds: int
    mechanism: Mechanism
    event: AnyText
    """The whole plan, as the ledger writes it."""
    schema: str
    release_bytes: int

    def round_event(self, round: int) -> GaussianText:
        """One round, as the ledger writes it."""
        return self.mechanism.round_text(round)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class _Array(_Part):
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_INTEGER)]], Field(max_length=MAX_DIMENSIONS)]
    dtype: Literal["float32"]


class _Model(_Part):
    name: str
    arrays: list[_Array]


class _Region(_Part):
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    mechanism: AnyPlan | None = None
    max_grad_norm: Annotated[float, Field(gt=0)]
    local_steps: _Count
    rounds: Annotated[list[_Count], Field(min_length=1)] | None = None


class _Document(_Part):
    mode: Literal["private", "rehearsal"]
    unit: Literal["vehicle"]
    adjacency: Literal["zero-out"]
    num_rounds: _Count
    model: _Model


def _task(document: Mapping[str, Any]) -> str:
    """What is trained. A document that names none is of a release that knew motion forecasting alone."""
    named = document.get("task", {"name": "forecasting"})
    name = named.get("name") if isinstance(named, Mapping) else None
    return name if isinstance(name, str) else ""


def read(document: Mapping[str, Any], region: str) -> Terms:
    """The terms of ``region`` in a plan's document.

    Raises:
        EvidenceError: the document lacks them, leaves the region out, or promises no privacy.
    """
    regions = document.get("regions")
    try:
        plan = _Document.model_validate(document)
        mine = _Region.model_validate(regions.get(region) if isinstance(regions, Mapping) else None)
        if mine.mechanism is not None:
            if document.get("format", 1) == 1:
                raise PlanError("mechanism", got="a field of format 2", expected="noise_multiplier")
            if "kind" not in mine.mechanism.model_fields_set:
                raise PlanError("mechanism", got="no kind", expected="one")
        mechanism = kind.of(**mine.model_dump(exclude={"rounds", "mechanism"}), mechanism=mine.mechanism)
        rounds = _rounds(document, plan, mine)
        event = mechanism.text(rounds)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise EvidenceError(
            ".".join(map(str, ("plan", *first["loc"]))),
            got=f"a value that a ledger cannot book ({first['type']})",
            expected=f"a private plan, or a rehearsal, that names {region}",
        ) from None
    except PlanError as error:
        raise EvidenceError(f"plan.{error.place}", got=error.got, expected=error.expected) from None
    return Terms(
        mode=plan.mode,
        task=_task(document),
        model=plan.model.name,
        rounds=rounds,
        mechanism=mechanism,
        event=event,
        schema=canonical.digest(document["model"]["arrays"]),
        release_bytes=4 * sum(prod(array.shape) for array in plan.model.arrays),
    )


def _rounds(document: Mapping[str, Any], plan: _Document, mine: _Region) -> int:
    """How many rounds the region takes part in. PlanError for a list of them that is none."""
    if mine.rounds is None:
        return plan.num_rounds
    if document.get("format", 1) < 3:
        raise PlanError("rounds", got="a field of format 3", expected="no list of rounds")
    if any(one >= other for one, other in pairwise([*mine.rounds, plan.num_rounds + 1])):
        raise PlanError("rounds", got="rounds out of order, or beyond the last", expected="ascending ones")
    return len(mine.rounds)
