"""Two releases at one border: they work together, or one sentence at connection says who must upgrade.

The other release is played: 0.1.0, which speaks version 1 and refuses all else, and one that is to come.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import operator_kit
import pytest
from coordinator.region_fake import Direct, RefusedCall
from coordinator.scene import Scene, plan_of, until
from ledger.ledger_kit import MEMORY
from node import coordinator_fake
from node import station_kit as kit
from plan.sample import REGION
from runner.runner_kit import gate_of, listening, train_folder

from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.cli import region_live
from fedfsd.coordinator import standing
from fedfsd.coordinator.offer import TOO_OLD
from fedfsd.errors import FormatError
from fedfsd.gate import message
from fedfsd.gate.frame import Frames
from fedfsd.gate.message import Hello, Unwelcome, Welcome
from fedfsd.ledger import program
from fedfsd.node.courier import Backoff
from fedfsd.runner.worker import Worker

NEXT = wire.VERSION + 1
UNKNOWN = b"\x7a\x03abc"
"""A field that only the next release knows."""
PLAN = operator_kit.plan()


# This release in the region.


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Path:
    return kit.folder(tmp_path_factory.mktemp("blank"))


@pytest.fixture
def eu(blank, tmp_path) -> Path:
    """A region that has approved PLAN."""
    made = Path(shutil.copytree(blank, tmp_path / "eu"))
    kit.approve(made, PLAN)
    return made


@pytest.fixture
def hub(tmp_path, monkeypatch) -> coordinator_fake.Coordinator:
    monkeypatch.setattr(Backoff, "FIRST", 0.01)
    monkeypatch.setattr(Backoff, "MOST", 0.02)
    (tmp_path / "hub").mkdir()
    return coordinator_fake.Coordinator(tmp_path / "hub")


def speaking(
    hub: coordinator_fake.Coordinator, answer: Callable[[pb.Welcome, pb.Greeting], pb.Welcome]
) -> None:
    hub.twists["Hello"] = answer


def strictly(version: int) -> Callable[[Any, pb.Ready], Any]:
    """Refuses another version, as every release does."""

    def check(answer: Any, request: pb.Ready) -> Any:
        assert request.version == version
        return answer

    return check


def logged(region: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (region / "log" / "gate.jsonl").read_text().splitlines()]


def test_a_region_with_the_coordinator_of_0_1_0(eu, hub):
    def hello(answer: pb.Welcome, request: pb.Greeting) -> pb.Welcome:
        assert 1 in request.versions
        wire.strict(request)
        assert not request.SerializeToString().startswith(b"\x12")  # versions alone
        return pb.Welcome(version=1, epoch=answer.epoch, size=answer.size)

    speaking(hub, hello)
    hub.twists |= {"Next": strictly(1), "Beat": strictly(1)}
    with kit.working(eu, hub) as made:
        hub.ask(PLAN, 1, kit.ARRAYS)
        hub.wait(lambda: hub.received)
        assert made.tally.document()["connection"] == "open"


def test_a_region_with_a_next_coordinator_that_speaks_its_version_too(eu, hub):
    def hello(answer: pb.Welcome, request: pb.Greeting) -> pb.Welcome:
        return pb.Welcome(version=max(request.versions), epoch=answer.epoch, size=answer.size)

    speaking(hub, hello)
    hub.twists |= {"Next": strictly(wire.VERSION), "Beat": strictly(wire.VERSION)}
    with kit.working(eu, hub):
        hub.ask(PLAN, 1, kit.ARRAYS)
        hub.wait(lambda: hub.received)


def test_a_region_with_a_next_coordinator_that_does_not(eu, hub):
    newer = pb.Welcome.FromString(pb.Welcome(version=NEXT).SerializeToString() + UNKNOWN)
    speaking(hub, lambda answer, request: newer)
    with kit.working(eu, hub) as made:
        hub.wait(lambda: hub.calls.count("Hello") > 5)
        assert set(hub.calls) == {"Hello"}
        why = made.tally.document()["objection"]
        assert (f"version {NEXT} at the coordinator" in why, "expected version 1, 2, 3 or 4" in why) == (
            True,
            True,
        )
        assert why.endswith("upgrade fedfsd at this region")
        del hub.twists["Hello"]  # one of the two is upgraded
        hub.ask(PLAN, 1, kit.ARRAYS)
        hub.wait(lambda: hub.received)
        assert made.tally.document()["objection"] is None
    told = [one for one in logged(eu) if one["event"] == "connection_refused"]
    assert [one["line"] for one in told] == [why]


def test_a_region_with_an_older_coordinator_that_it_no_longer_knows(eu, hub):
    speaking(hub, lambda answer, request: pb.Welcome(version=0))
    with kit.working(eu, hub) as made:
        hub.wait(lambda: hub.calls.count("Hello") > 2)
        assert made.tally.document()["objection"].endswith("upgrade fedfsd at the coordinator")


def test_a_plan_of_a_newer_release_is_refused_before_any_round(blank, tmp_path, hub, monkeypatch):
    def read(document: str) -> Any:
        raise FormatError("plan", got="format 9", expected="format 1", hint="upgrade fedfsd on this side")

    monkeypatch.setattr("fedfsd.node.proposal.plans.read", read)
    eu = Path(shutil.copytree(blank, tmp_path / "eu"))
    with kit.working(eu, hub):
        hub.offer(PLAN)
        hub.wait(lambda: hub.answers)
    assert hub.answers == {PLAN.hash: "plan"}
    (told,) = [one for one in logged(eu) if one["event"] == "plan_refused"]
    assert "format 9" in told["line"]


# This release at the coordinator.


@pytest.fixture
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = Scene(Path(folder), plan_of())
        yield made
        made.close()


def region(scene: Scene) -> dict[str, Any]:
    """What people are told of the region CN."""
    return standing.document(scene.hall)["regions"]["CN"]


def outstanding(scene: Scene, stub: Direct, version: int) -> pb.Round:
    """A round, as a region that speaks ``version`` gets it."""
    scene.fleets["CN"].ask(plan_of(), 1)
    return until(lambda: stub.Next(pb.Ready(version=version)).WhichOneof("task") == "round")


def test_a_coordinator_with_a_region_of_0_1_0(scene):
    stub = scene.stub("CN")
    assert stub.Hello(pb.Greeting(versions=[1])) == pb.Welcome(version=1)
    assert stub.Beat(pb.Ready(version=1)) == pb.Done()
    assert outstanding(scene, stub, 1)


def test_a_coordinator_with_a_next_region_that_speaks_its_version_too(scene):
    stub = scene.stub("CN")
    assert stub.Hello(pb.Greeting(versions=[1, wire.VERSION, NEXT])).version == wire.VERSION
    assert outstanding(scene, stub, wire.VERSION)


@pytest.mark.parametrize(("theirs", "who"), [(NEXT, "the coordinator roads"), (0, "region CN")])
def test_a_coordinator_with_a_region_that_does_not(scene, caplog, theirs, who):
    stub, greeting = scene.stub("CN"), pb.Greeting(versions=[theirs]).SerializeToString()
    said = stub.Hello(pb.Greeting.FromString(greeting + UNKNOWN))
    assert said == pb.Welcome(version=wire.VERSION)  # by which the region says the same
    why = region(scene)["objection"]
    assert f"got version {theirs} at region CN, expected version 1, 2, 3 or 4" in why
    assert why.endswith(f"upgrade fedfsd at {who}")
    assert [one.line for one in caplog.records if one.message == "refused"] == [why]
    for call in (stub.Beat, stub.Next):
        with pytest.raises(RefusedCall):
            call(pb.Ready(version=NEXT))
    stub.Hello(pb.Greeting(versions=wire.VERSIONS))
    assert region(scene)["objection"] is None


def test_a_greeting_with_more_than_versions_is_refused(scene):
    greeting = pb.Greeting(versions=wire.VERSIONS).SerializeToString()
    with pytest.raises(RefusedCall):
        scene.stub("CN").Hello(pb.Greeting.FromString(greeting + UNKNOWN))


def test_a_gate_that_was_started_again_takes_the_version_from_the_region(scene):
    scene.stub("CN").Beat(pb.Ready(version=1))
    assert scene.hall.station("CN").version == 1
    scene.stub("CN").Beat(pb.Ready(version=2))
    assert scene.hall.station("CN").version == 2


def test_a_plan_that_an_old_region_cannot_read_is_not_offered_to_it(scene, monkeypatch):
    monkeypatch.setattr(
        wire, "PLANS", {1: 0, 2: 1, wire.VERSION: 1}
    )  # so that version 1 carries no plan of today
    plan = plan_of("another")
    scene.offer(plan, approved=False)
    scene.hall.look()
    old, new = scene.stub("CN"), scene.stub("EU")
    old.Hello(pb.Greeting(versions=[1]))
    new.Hello(pb.Greeting(versions=[1, 2]))
    assert old.Next(pb.Ready(version=1), timeout=0.1) == pb.Task()
    assert new.Next(pb.Ready(version=2)).plan.plan.hex() == plan.hash
    assert scene.hall.board.answer_of("CN", plan.hash) == TOO_OLD
    why = region(scene)["objection"]
    assert "a plan of format 1 for region CN, which speaks version 1 of the border, expected version 2" in why
    assert "upgrade fedfsd at region CN" in why


# Gate and runner, which two users of one machine may have installed.


def greeted(folder: Path, header: dict[str, Any]) -> Any:
    """The gate's answer to a hello."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "gate.sock"))
        frames = Frames(connection)
        frames.send({"op": "hello", "region": REGION, "keys": [], **header})
        return message.receive(frames, Welcome, Unwelcome, seconds=5)[0]


def test_a_gate_with_a_next_runner(tmp_path, caplog):
    with listening(gate_of(tmp_path), tmp_path) as runner:
        told = greeted(tmp_path, {"version": message.VERSION + 1, "more": {"than": "is known"}})
        assert told == Unwelcome(version=message.VERSION)
        assert not runner.connected
        until(lambda: [one for one in caplog.records if one.message == "runner_not_welcome"])
        mine = {"version": message.VERSION, "program": program.installed().model_dump(mode="json")}
        assert isinstance(greeted(tmp_path, mine), Welcome)
    (told,) = [one for one in caplog.records if one.message == "runner_not_welcome"]
    assert told.line.endswith("upgrade fedfsd at the gate")
    assert (
        f"got version {message.VERSION + 1} at the runner, expected version {message.VERSION};" in told.line
    )


def test_a_runner_with_a_next_gate(tmp_path):
    train = train_folder(tmp_path, "embedded")
    worker = Worker(train, REGION, "embedded", "cpu", True)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        message.send(Frames(theirs), Unwelcome(version=message.VERSION + 1))
        version = message.VERSION
        expected = rf"version {version + 1} at the gate, expected version {version}; .* at the runner"
        with pytest.raises(FormatError, match=expected):
            worker.greet(mine)
        assert message.receive(Frames(theirs), Hello, seconds=5)[0].version == message.VERSION


def test_a_runner_waits_for_an_upgrade_and_says_why_once(tmp_path, capfd, monkeypatch):
    from fedfsd.runner import process

    class Ended(Exception):
        pass

    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 3:
            raise Ended

    train = train_folder(tmp_path, "embedded")
    monkeypatch.setattr(process.time, "sleep", sleep)
    monkeypatch.setattr(Worker, "greet", lambda worker, connection: refuse(connection))
    settings = process.load(process.Settings, train / process.SETTINGS)
    with listening(gate_of(tmp_path), tmp_path), pytest.raises(Ended):
        process.run(train, settings)
    assert capfd.readouterr().err.count("upgrade fedfsd") == 1


def refuse(connection: socket.socket) -> None:
    raise FormatError("runner socket", got="version 2 at the gate", hint="upgrade fedfsd at the runner")


def test_an_operator_reads_who_must_upgrade():
    why = "format: border: got version 9 at the coordinator; fix: upgrade fedfsd at this region"
    found = {"up": None, "own": None, "gate": {"connection": "waiting", "runner": True, "objection": why}}
    assert f"gate: NOT connected: {why}, runner there" in region_live.text(found)
    found["gate"]["objection"] = None
    assert "fedfsd region doctor shows why" in region_live.text(found)
