"""Plans whose numbers are made to break whoever reads them: each is answered with a code, at once."""

from __future__ import annotations

import json

import operator_kit
import pytest
from node import station_kit as kit
from node.coordinator_fake import Coordinator, Direct

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.proposal import Proposals

PLAN = operator_kit.plan()
MOST = 2**53 - 1
ABSURD = {
    "an array of more elements than a float can count": ("model.arrays.0.shape", [MOST] * 30, "plan"),
    "as many axes as fit": ("model.arrays.0.shape", [MOST] * 40_000, "plan"),
    "sixteen axes": ("model.arrays.0.shape", [MOST] * 16, "refused"),
    "a sample rate above zero, hardly": ("regions.EU.sample_rate", 5e-324, "refused"),
    "a roster of everybody": ("regions.EU.roster", MOST, "refused"),
    "steps without end": ("regions.EU.local_steps", MOST, "refused"),
    "rounds without end": ("num_rounds", MOST, "refused"),
    "clipping at infinity": ("regions.EU.max_grad_norm", 1e308, "refused"),
    "a delta of nothing": ("regions.EU.target_delta", 5e-324, "refused"),
    "a number that JSON does not have": ("seed", 2**53, "plan"),
    "a list for a number": ("num_rounds", [3], "plan"),
    "true for a number": ("num_rounds", True, "plan"),
}


def absurd(where: str, value: object) -> bytes:
    """PLAN's document with one value replaced; an array comes before the witness block."""
    document = json.loads(PLAN.document())
    document["model"]["arrays"].insert(0, {"name": "w", "shape": [1], "dtype": "float32"})
    place, *way = document, *where.split(".")[:-1]
    for key in way:
        place = place[int(key) if key.isdecimal() else key]
    place[where.rpartition(".")[2]] = value
    if value == 2**53:
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return canonical.encode(document)


@pytest.fixture(scope="module")
def proposals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    (folder / "hub").mkdir()
    hub = Coordinator(folder / "hub")
    with kit.station(kit.folder(folder), hub) as made:
        yield Proposals(made), CoordinatorLine(Direct(hub), count=made.tally.crossed), hub


@pytest.mark.parametrize("what", ABSURD)
def test_an_absurd_plan_is_answered_with_a_code(proposals, what):
    judge, line, hub = proposals
    where, value, code = ABSURD[what]
    content = absurd(where, value)
    name = canonical.sha256(content)
    hub.documents[bytes.fromhex(name)] = content
    judge.consider(line, pb.PlanOffer(plan=bytes.fromhex(name), size=len(content)))
    assert hub.answers[name] == code
    assert judge.pending == ()
