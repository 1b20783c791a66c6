"""What a region makes of a coordinator's messages: a release, or one of four codes, and no other word."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from books import keep_books, rounds_in
from conftest import drives
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from plan.sample import REGION, planned

from fedfsd.drive import table
from fedfsd.federation import reply
from fedfsd.flower import private
from fedfsd.gate import outcome
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner.client import client_app
from fedfsd.runner.region import RegionConfig
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

SECRET = "vehicle-17-of-the-minister"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    found = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    return found | {WITNESS: np.zeros(4096, np.float32)}


@pytest.fixture(scope="module")
def plan(arrays) -> Plan:
    return planned({name: array.shape for name, array in arrays.items()})


class Node:
    """A real node of one region, and the message that a coordinator sends it."""

    def __init__(self, config: RegionConfig, plan: Plan, arrays: dict[str, np.ndarray]) -> None:
        private.become(1)
        self.folder = Path(config.folder)
        self.app = client_app(lambda _: config)
        self.plan, self.arrays = plan, arrays
        keep_books(self.folder, REGION, plan)

    def content(self) -> RecordDict:
        return RecordDict(
            {
                "arrays": ArrayRecord({name: Array(array) for name, array in self.arrays.items()}),
                "config": ConfigRecord({"plan": self.plan.document(), "round": 1}),
            }
        )

    def ask(self, content: RecordDict) -> Message:
        message = Message(content, 2, "train")
        private.number(message)
        context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
        return self.app(message, context)

    @property
    def booked(self) -> list:
        return rounds_in(self.folder)


@pytest.fixture
def node(tmp_path, plan, arrays) -> Node:
    table.write(drives({REGION: 30}, origin="recorded"), tmp_path / f"{SECRET}.parquet")
    policy = tmp_path / "policy.toml"
    policy.write_text('roster = 30\nidentity = "physical"\n')
    config = RegionConfig(
        REGION, str(tmp_path / f"{SECRET}.parquet"), str(tmp_path / "CN"), "cpu", str(policy)
    )
    return Node(config, plan, arrays)


def refused(node: Node, content: RecordDict, *, booked: bool = False) -> str:
    """The code of a reply, which says nothing else; nothing was booked."""
    answer = node.ask(content)
    assert answer.has_error()
    assert answer.error.reason == outcome.from_flower(answer.error.code)
    assert booked or node.booked == []
    assert SECRET.encode() not in pickle.dumps(answer)
    return answer.error.reason


def test_a_release_holds_update_entry_and_hash_and_nothing_else(node, plan):
    answer = node.ask(node.content())
    assert answer.has_content()
    content = answer.content
    assert set(content) == {"arrays", "metrics", "release"}
    assert dict(content.metric_records["metrics"]) == {}
    release = content.config_records["release"]
    assert set(release) == {"entry", "sha256"}
    assert re.fullmatch("[0-9a-f]{64}", release["entry"])
    outcome, update = reply.read(answer, plan, REGION, 1)
    assert outcome.code == "released"
    assert list(update) == [entry.name for entry in plan.model.arrays]
    for entry in plan.model.arrays:
        array = content.array_records["arrays"][entry.name]
        assert (array.dtype, tuple(array.shape)) == ("float32", entry.shape)
        header = 128  # bytes of a .npy header: no room for anything else
        assert len(array.data) == header + 4 * entry.size


def config(node: Node, **changes) -> RecordDict:
    content = node.content()
    content["config"] = ConfigRecord(dict(content.config_records["config"]) | changes)
    return content


@pytest.mark.parametrize(
    "round", [True, False, "1", "one", 1.0, 0, -1, 4, 2**62, [1], b"\x01"], ids=lambda value: repr(value)
)
def test_a_round_is_a_whole_number_of_the_plan(node, round):
    assert refused(node, config(node, round=round)) == "refused"


PLANS = {
    "not JSON": lambda plan: "{",
    "empty": lambda plan: "",
    "bytes": lambda plan: plan.document().encode(),
    "a number": lambda plan: 7,
    "a list": lambda plan: [plan.document()],
    "its hash": lambda plan: plan.hash,
    "with a space": lambda plan: plan.document() + " ",
    "twice": lambda plan: plan.document() * 2,
    "deep": lambda plan: "[" * 100_000,
    "long": lambda plan: '{"' + "x" * 1_000_000 + '":1}',
}


@pytest.mark.parametrize("what", PLANS)
def test_what_is_no_plan_is_refused(node, what):
    assert refused(node, config(node, plan=PLANS[what](node.plan))) == "plan"


HOSTILE = {
    "of another region": {"regions": {}},
    "no privacy": {"mode": "none"},
    "rehearsal": {"mode": "rehearsal"},
    "no noise": {"noise_multiplier": 0.0, "epsilon": 1.0},
    "another roster": {"roster": 31},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_plans_are_refused(node, what, arrays):
    shapes = {name: array.shape for name, array in arrays.items()}
    changes = HOSTILE[what]
    if "regions" in changes:
        changes = {"regions": {"EU": json.loads(node.plan.document())["regions"][REGION]}}
    document = planned(shapes, **changes).document()
    assert refused(node, config(node, plan=document)) in {"refused", "plan"}


@pytest.mark.parametrize("key", ["debug", "vehicle", "plan2", ""])
def test_more_keys_are_refused(node, key):
    assert refused(node, config(node, **{key: "x"})) == "refused"


@pytest.mark.parametrize("key", ["plan", "round"])
def test_missing_keys_are_refused(node, key):
    content = node.content()
    content["config"] = ConfigRecord(
        {name: value for name, value in content.config_records["config"].items() if name != key}
    )
    assert refused(node, content) == "refused"


@pytest.mark.parametrize("record", ["arrays", "config"])
def test_missing_records_are_refused(node, record):
    content = node.content()
    del content[record]
    assert refused(node, content) == "refused"


@pytest.mark.parametrize(
    "record", [ConfigRecord({"x": 1}), MetricRecord({"x": 1}), ArrayRecord({"x": Array(np.zeros(1))})]
)
def test_more_records_are_refused(node, record):
    content = node.content()
    content["more"] = record
    assert refused(node, content) == "refused"


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros(3, np.float32))
    return buffer.getvalue()


def header(elements: int) -> bytes:
    """A .npy header of so many numbers, and none of them."""
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % elements
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"


TRACE = Path(tempfile.gettempdir()) / "fedfsd-test-unpickled"


class Bomb:
    def __reduce__(self):
        return Path.touch, (TRACE,)


DATA = {
    "empty": b"",
    "noise": b"\x00\xff" * 50,
    "pickle": pickle.dumps(Bomb()),
    "pickled objects": npy(np.array([Bomb()], object), allow_pickle=True),
    "an archive": npz(),
    "a broken archive": b"PK\x03\x04" + bytes(60),
    "a header without data": npy(np.zeros(3, np.float32))[:128],
    "a terabyte announced": header(250_000_000_000),
    "more than was sent": header(2**62),
    "another version": b"\x93NUMPY\x09\x00" + npy(np.zeros(3, np.float32))[8:],
    "float64": npy(np.zeros(4096)),
    "another shape": npy(np.zeros((1, 4096), np.float32)),
    "NaN": npy(np.full(4096, np.nan, np.float32)),
}


def with_data(node: Node, data: bytes, stype: str = "numpy.ndarray") -> RecordDict:
    content = node.content()
    content.array_records["arrays"][WITNESS] = Array("float32", (4096,), stype, data)
    return content


@pytest.mark.parametrize("what", DATA)
def test_bytes_that_are_not_the_array_they_claim_to_be_are_refused(node, what):
    assert refused(node, with_data(node, DATA[what])) in {"refused", "region_unavailable"}
    assert not TRACE.exists()


def test_another_serialisation_is_refused(node):
    data = npy(np.zeros(4096, np.float32))
    assert refused(node, with_data(node, data, "torch.Tensor")) in {"refused", "region_unavailable"}


@pytest.mark.parametrize("what", DATA)
def test_the_coordinator_survives_the_same_bytes_in_a_reply(node, plan, what):
    answer = node.ask(node.content())
    answer.content.array_records["arrays"][WITNESS] = Array("float32", (4096,), "numpy.ndarray", DATA[what])
    outcome, update = reply.read(answer, plan, REGION, 1)
    assert outcome.code == "bad_reply"
    assert update is None


@pytest.mark.parametrize("release", [{}, {"sha256": 7}, {"sha256": "0" * 64}, {"sha256": ["x"]}])
def test_the_coordinator_survives_a_false_release(node, plan, release):
    answer = node.ask(node.content())
    answer.content["release"] = ConfigRecord(release)
    assert reply.read(answer, plan, REGION, 1)[0].code == "bad_reply"


def test_an_error_inside_says_nothing_of_it(tmp_path, plan, arrays, caplog):
    """The table is broken: the path, which is a secret here, stays in the region's own log."""
    path = tmp_path / f"{SECRET}.parquet"
    path.write_bytes(b"PAR1 " + SECRET.encode())
    policy = tmp_path / "policy.toml"
    policy.write_text('roster = 30\nidentity = "physical"\n')
    node = Node(RegionConfig(REGION, str(path), str(tmp_path / "x"), "cpu", str(policy)), plan, arrays)
    with caplog.at_level(logging.CRITICAL):
        assert refused(node, node.content(), booked=True) == "region_unavailable"


def test_a_second_message_gets_the_same_bytes(node):
    answers = [node.ask(node.content()).content for _ in range(2)]
    for name in answers[0].array_records["arrays"]:
        one, other = (answer.array_records["arrays"][name] for answer in answers)
        assert one.data == other.data
    assert answers[0].config_records["release"] == answers[1].config_records["release"]
    assert len(node.booked) == 2
