"""A coordinator with the keys of the federation that says more than it may: the gate of a region over TLS."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import operator_kit
import pytest
from node import station_kit as kit
from node.coordinator_fake import Coordinator
from pki_kit import Federation

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.border import channel, identity, rpc
from fedfsd.node.courier import Backoff
from fedfsd.plan import plan as plans

PLAN = operator_kit.plan()
TEXT = "Kestrel7Marlin4Ibis"
WORDS = f"{TEXT}\n\x1b[2J{{}}"


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Path:
    """A region that approved PLAN, made once."""
    path = tmp_path_factory.mktemp("blank")
    kit.folder(path)
    kit.approve(path / "eu", PLAN)
    return path / "eu"


@pytest.fixture
def eu(blank, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(Backoff, "FIRST", 0.01)
    monkeypatch.setattr(Backoff, "MOST", 0.05)
    return Path(shutil.copytree(blank, tmp_path / "eu"))


@pytest.fixture
def hub(tmp_path) -> Coordinator:
    (tmp_path / "memory").mkdir()
    return Coordinator(tmp_path / "memory")


@contextmanager
def served(folder: Path, hub: object, **options: Any) -> Iterator[Callable[[], grpc.Channel]]:
    """A server as the coordinator's certificate allows, and nothing of ours in it; how a region dials it."""
    roads = Federation(folder / "pki")
    pair = tuple((roads.folder / f"hub.{kind}").read_bytes() for kind in ("key", "crt"))
    server = grpc.server(ThreadPoolExecutor(8), **options)
    rpc.add(server, hub)
    credentials = grpc.ssl_server_credentials([pair], roads.root.read_bytes(), True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield lambda: channel.open_channel(
            f"127.0.0.1:{port}",
            root=roads.root,
            key=roads.folder / "EU.key",
            certificate=roads.folder / "EU.crt",
            expected_uri=str(identity.coordinator("roads")),
        )
    finally:
        server.stop(0).wait()


class Talkative(Coordinator):
    """``say(context)`` is what it says beside its answers to one method."""

    method = "Next"
    say: Callable[[Any], None] = staticmethod(lambda context: None)

    def Next(self, request: pb.Ready, context: Any) -> pb.Task:
        if self.method == "Next":
            self.say(context)
        return super().Next(request, context)

    def Fetch(self, request: pb.ArraysRequest, context: Any) -> Iterator[pb.Chunk]:
        if self.method == "Fetch":
            self.say(context)
        yield from super().Fetch(request, context)


@pytest.mark.parametrize("method", ["Next", "Fetch"])
@pytest.mark.parametrize(
    ("say", "event"),
    [
        (lambda context: context.send_initial_metadata((("x-note", TEXT),)), "refused"),
        (lambda context: context.set_trailing_metadata((("note-bin", TEXT.encode()),)), "refused"),
        (lambda context: context.abort(grpc.StatusCode.INTERNAL, WORDS), "internal"),
    ],
    ids=["metadata before", "metadata behind", "words in the status"],
)
def test_what_is_said_beside_messages_is_refused_and_never_repeated(eu, tmp_path, method, say, event):
    (tmp_path / "memory").mkdir()
    hub = Talkative(tmp_path / "memory")
    hub.method, hub.say = method, say
    with served(tmp_path, hub) as dial, kit.working(eu, hub, dial) as made:
        hub.ask(PLAN, 1, kit.ARRAYS)
        hub.wait(lambda: hub.calls.count("Hello") > 2 or hub.refusals)
        assert made.runner.rounds == []
    assert kit.entries(eu, "reserve") == []
    assert event in kit.log(eu)
    assert all(json.loads(line) for line in kit.log(eu).splitlines())
    assert TEXT not in kit.log(eu)


def test_packed_answers_are_refused_before_they_are_unpacked(eu, hub, tmp_path):
    with (
        served(tmp_path, hub, compression=grpc.Compression.Gzip) as dial,
        kit.working(eu, hub, dial) as made,
    ):
        hub.ask(PLAN, 1, kit.ARRAYS)
        hub.wait(lambda: hub.calls.count("Hello") > 2)
        assert made.runner.rounds == []
    # What is too short to be worth it gRPC leaves as it is; the arrays, all zeros, came packed.
    assert "Fetch" in hub.calls
    assert all(path.stat().st_size == 0 for path in (eu / "inbox").iterdir())
    assert kit.entries(eu, "reserve") == []
    assert "connection_lost" in kit.log(eu)


def test_another_plan_of_the_same_name_needs_an_approval_of_its_own(eu, hub, tmp_path):
    other = operator_kit.plan(noise=3.0)
    assert other.name == PLAN.name
    with served(tmp_path, hub) as dial, kit.working(eu, hub, dial) as made:
        hub.offer(other)
        hub.ask(other, 1, kit.ARRAYS)
        hub.wait(lambda: hub.refusals)
        assert made.runner.rounds == []
    assert hub.refusals == {(other.hash, 1): "plan"}
    assert "Fetch" not in hub.calls
    assert other.hash not in hub.answers
    assert [(one.plan, one.code) for one in kit.entries(eu, "refuse")] == [(other.hash, "policy")]


@pytest.mark.parametrize("name", ["antigravity", "../../evil", "mlp ", "security.hostile_client:app"])
def test_a_model_that_nobody_reviewed_is_refused_and_not_looked_for(eu, hub, tmp_path, name):
    document = json.loads(PLAN.document())
    document["model"]["name"] = name
    text = canonical.encode(document).decode()
    plan = plans.read(text)
    with served(tmp_path, hub) as dial, kit.working(eu, hub, dial):
        hub.offer(plan)
        hub.wait(lambda: hub.answers)
        hub.ask(plan, 1, kit.ARRAYS)
        hub.wait(lambda: hub.refusals)
    assert hub.answers == {plan.hash: "refused"}
    assert hub.refusals == {(plan.hash, 1): "plan"}
    assert not {"antigravity", "security.hostile_client", "evil"} & set(sys.modules)
    assert not list((eu / "plans").iterdir())
