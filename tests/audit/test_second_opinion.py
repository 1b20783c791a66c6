"""The checks and the ledger's own program are two readings of one format: neither may refuse alone.

Every field of every entry of a rich ledger is changed, signed again under new checkpoints, and both are
asked. Where they differ, one of them has a rule that the other lacks.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from forge import Forge, check, outcomes, plan_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.errors import FormatError
from fedfsd.ledger import draft, strict
from fedfsd.ledger.entry import MAX_INTEGER, Abort, Incident, Refuse, WitnessEntry, parse
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.strict import Document


def rich() -> Forge:
    """An entry of every type but those that change keys or end the ledger; two plans, two grants."""
    forge = Forge()
    first, second, third = plan_of(rounds=3), plan_of(seed=1), plan_of(seed=2)
    forge.grant(approval_required=True, carried_rho=5)
    permit = forge.permit(max_releases=4, max_bytes=80)
    forge.approve(first)
    forge.round(first, 1, approval=permit)
    forge.add(Refuse(plan=first.hash, round=9, code="arrays"))
    forge.reserve(first, 2, approval=permit)
    forge.add(Abort(plan=first.hash, round=2, reserve=len(forge.entries) - 1, code="failed"))
    size = len(forge.entries)
    forge.add(WitnessEntry(size=size, checkpoint=forge.head(cosigned=True)))
    forge.settle(first)
    forge.grant(epsilon=9.0)
    forge.approve(second)
    forge.add(Incident(plan=None, code="other", text="a disk was replaced"))
    forge.round(second, 1, approval=permit)
    forge.add(draft.recover(forge.state, lost_size=30, lost_root=None, reach="rounds"))
    forge.epoch = 1
    forge.approve(third)
    forge.round(third, 1)
    forge.settle(third)
    return forge


def others(value: Any) -> Iterator[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (
            one
            for one in (value - 1, value + 1, 2 * value + 3, 0)
            if 0 <= one <= MAX_INTEGER and one != value
        )
    elif isinstance(value, float):
        yield from (value / 2, value * 2)
    elif isinstance(value, str):
        yield value[:-1] + ("0" if value[-1] != "0" else "1")
    elif isinstance(value, tuple) and value:
        yield value[:-1]


def changes(one: Any) -> Iterator[dict[str, Any]]:
    """Each field with other values, those of its parts included."""
    for name, value in one:
        if name in ("type", "seq", "signatures", "document", "checkpoint", "key"):
            continue
        if isinstance(value, Document):
            yield from ({name: value.model_copy(update=change)} for change in changes(value))
        elif isinstance(value, tuple) and value and isinstance(value[0], Document):
            yield from ({name: (value[0].model_copy(update=change),)} for change in changes(value[0]))
        else:
            yield from ({name: other} for other in others(value))


def asked(folder, forge: Forge) -> tuple[bool, dict[str, str]]:
    """Whether the ledger's own program refuses, and what the other checks say."""
    found = outcomes(check(folder, forge))
    return found.pop("rules", "") == "contradicted", found


def resealed(forge: Forge) -> None:
    """New checkpoints over the changed entries, also the one that the witness entry holds."""
    place = next(seq for seq, one in enumerate(forge.entries) if one.type == "witness")
    forge.heads.clear()
    forge.epoch = 0
    forge.edit(place, checkpoint=forge.head(place, cosigned=True))
    forge.epoch = 1


def test_the_rich_ledger_holds(tmp_path):
    assert asked(tmp_path, rich()) == (False, {})


FREE = """
approval: authority max_bytes max_releases number valid_until
genesis: code simulated version
grant: approval_required data_commitment delta epsilon explanation max_plans max_rounds plan_cap
grant: recipient_cap rho_max simulated
incident: plan text
plan: code key_commitment purpose version
recover: lost_root lost_size
refuse: plan round
release: sha256
reserve: arrays date
"""
"""Fields that some other value may stand in, because nothing inside this ledger depends on it."""


@pytest.mark.slow
@pytest.mark.parametrize("seq", range(21))
def test_every_field_changed(tmp_path, seq):
    check_fields(tmp_path, seq, 10)


@pytest.mark.parametrize("seq", [0, 10, 13, 16])
def test_a_field_changed(tmp_path, seq):
    check_fields(tmp_path, seq, 1)


def check_fields(folder, seq: int, most: int) -> None:
    honest = rich()
    kind = honest.entries[seq].type
    free = {name for line in FREE.splitlines() if line.startswith(f"{kind}:") for name in line.split()[1:]}
    tried: Counter[str] = Counter()
    for change in changes(honest.entries[seq]):
        (name,) = change
        tried[name] += 1
        forge = copy.deepcopy(honest)
        forge.edit(seq, **change)
        if tried[name] > most or not says(forge, seq):
            continue
        resealed(forge)
        refused, found = asked(folder, forge)
        assert refused == ("contradicted" in found.values()), (kind, change, found)
        assert refused or name in free, (kind, change)


def says(forge: Forge, seq: int) -> bool:
    """Whether the format has a way to say what the entry now holds."""
    try:
        return bool(parse(strict.encode(forge.entries[seq])))
    except (EvidenceError, FormatError):  # a newer release's number: test_newer
        return False


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_of_entries(tmp_path, data):
    """Entries left out, doubled and moved, all signed again: both refuse, and nothing breaks."""
    forge = copy.deepcopy(RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(1, len(forge.entries) - 1))
        one = forge.entries.pop(place)
        for _ in range(data.draw(st.sampled_from([0, 1, 1, 2]))):
            forge.entries.insert(data.draw(st.integers(0, len(forge.entries))), one)
    forge.renumber()
    forge.heads.clear()
    forge.epoch = sum(one.type == "recover" for one in forge.entries)
    refused, found = asked(tmp_path, forge)
    assert refused == ("contradicted" in found.values())


RICH = rich()
