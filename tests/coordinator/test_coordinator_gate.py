"""The gate over its real wire: mutual TLS, two regions, and what a peer can do below the messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from coordinator.region_fake import READY, RegionFake, chunks
from coordinator.scene import NAMES, FleetFake, plan_of, until
from coordinator.test_desk_course import ready, task_of

from fedfsd.border import authority, channel, identity, rpc
from fedfsd.border import border_pb2 as pb
from fedfsd.border.authority import Authority
from fedfsd.coordinator.coordinator_gate import CoordinatorGate
from fedfsd.coordinator.folder import Coordinator, CoordinatorSettings
from fedfsd.coordinator.new_coordinator import make
from fedfsd.errors import NotReadyError

PLAN = plan_of()


class Wire:
    """A coordinator's gate in this process and its regions, each with a channel of its own."""

    def __init__(self, folder: Path) -> None:
        settings = CoordinatorSettings(name="roads", port=0, join_port=0, flower_port=0)
        self.coordinator: Coordinator = make(settings, folder / "hub")
        self.fleets = {name: FleetFake() for name in NAMES}
        self.regions = {name: RegionFake(self.coordinator, name, folder / name, PLAN) for name in NAMES}
        for name in NAMES:
            self.certify(name)
        offer = self.coordinator.offers / f"{PLAN.hash}.json"
        offer.write_text(PLAN.document())
        offer.with_suffix("").mkdir()
        for name in NAMES:
            (offer.with_suffix("") / f"{name}.json").write_text('{"approved":true,"code":null}')
        self.gate = CoordinatorGate(self.coordinator, connect=self.fleets.__getitem__)
        self._thread = threading.Thread(target=self.gate.run)
        self._thread.start()
        until(lambda: self.gate.join_port)
        self.channels = ExitStack()
        self.stubs = {name: self.stub(name) for name in NAMES}

    @property
    def hall(self):
        return self.gate.hall

    def certify(self, name: str) -> None:
        """Issue a certificate, as if it had been asked for and confirmed."""
        root, key = Authority.read(self.coordinator.ca), authority.new_key()
        folder = self.coordinator.region(name)
        authority.write_key(key, folder / "region.key")
        made = root.issue(identity.region("roads", name), key.public_key())
        authority.write_certificate(made, folder / "region.crt")

    def channel(self, name: str) -> grpc.Channel:
        """A connection of that region's."""
        folder = self.coordinator.region(name)
        return self.channels.enter_context(
            channel.open_channel(
                f"127.0.0.1:{self.gate.port}",
                root=self.coordinator.root,
                key=folder / "region.key",
                certificate=folder / "region.crt",
                expected_uri=str(self.coordinator.identity),
            )
        )

    def stub(self, name: str) -> Any:
        """Calls over a connection of its own."""
        return rpc.stub(self.channel(name))

    def close(self) -> None:
        """Stop."""
        self.channels.close()
        self.gate.stop()
        self._thread.join(10)
        for region in self.regions.values():
            region.ledger.close()


class Timed:
    """A stub whose calls all have a deadline."""

    def __init__(self, stub) -> None:
        self._stub = stub

    def __getattr__(self, name: str):
        return lambda request, timeout=20: getattr(self._stub, name)(request, timeout=timeout)


@pytest.fixture(scope="module")
def wire(tmp_path_factory) -> Iterator[Wire]:
    made = Wire(tmp_path_factory.mktemp("wire"))
    yield made
    made.close()


def test_rounds_over_the_wire(wire):
    envelopes = {name: wire.fleets[name].ask(PLAN, 1) for name in NAMES}
    for name in NAMES:
        stub = Timed(wire.stubs[name])
        receipt = wire.regions[name].work(stub, task_of(stub))
        assert wire.fleets[name].answer(envelopes[name])[1][1] == receipt.entry.hex()
    path = wire.coordinator.folder / "status.json"
    last = {"plan": PLAN.hash, "round": 1, "outcome": "released"}
    until(lambda: path.exists() and json.loads(path.read_text())["regions"]["EU"]["last"] == last)
    status = json.loads(path.read_text())
    assert status["plans"][PLAN.hash]["regions"] == {"CN": "approved", "EU": "approved"}
    assert wire.gate._metrics.value("fedfsd_rounds_total", region="CN", outcome="released") == 1
    assert wire.gate._metrics.value("fedfsd_bytes_total", region="CN", direction="in") == 4 * PLAN.model.size
    lines = (wire.coordinator.folder / "log" / "gate.jsonl").read_text().splitlines()
    assert "round" in {json.loads(line)["event"] for line in lines}


@pytest.mark.parametrize(
    ("method", "content"),
    [
        ("Offer", b"\xff" * 100),
        ("Offer", b"\x0a\xff\xff\xff\xff\x0f"),
        ("Next", b"\x08\x01\x7a\x03abc"),
        ("Offer", bytes(5 * 2**20)),
        ("Evaluate", b""),
    ],
)
def test_what_is_no_message_is_refused_below(wire, method, content):
    call = wire.channel("CN").unary_unary(f"/fedfsd.border.v1.Border/{method}")
    with pytest.raises(grpc.RpcError) as refused:
        call(content, timeout=10)
    text = refused.value.details() or ""
    assert not any(word in text for word in ("CN", "fedfsd/", str(wire.coordinator.folder)))
    assert Timed(wire.stubs["EU"]).Beat(READY) == pb.Done()


def test_a_stream_that_stalls_holds_up_nobody(wire):
    """One region sends a byte and then nothing; the other, and its own next stream, go through."""

    class Here:
        regions, fleets = wire.regions, wire.fleets

        @staticmethod
        def stub(name: str) -> Timed:
            return Timed(wire.stubs[name])

    envelope, _, released, offer = ready(Here, "CN", 2)
    Here.stub("CN").Offer(offer)
    over = threading.Event()

    def stalled():
        yield next(iter(chunks(released.content)))
        over.wait(20)

    stub, ended = wire.stub("CN"), []

    def hang() -> None:
        try:
            stub.Send(stalled(), timeout=20)
        except grpc.RpcError as error:
            ended.append(error.code())

    thread = threading.Thread(target=hang)
    thread.start()
    until(lambda: list(wire.coordinator.store("CN").glob("*.part")))
    other = wire.fleets["EU"].ask(PLAN, 2)
    wire.regions["EU"].work(Here.stub("EU"), task_of(Here.stub("EU")))
    assert wire.fleets["EU"].answer(other)[0] == "reply"
    start = Here.stub("CN").Offer(offer).offset
    assert start == 4096
    Here.stub("CN").Send(chunks(released.content, start=start))
    assert wire.fleets["CN"].answer(envelope)[0] == "reply"
    over.set()
    thread.join(10)
    assert ended == [grpc.StatusCode.CANCELLED]


def test_it_ends_at_once_while_calls_are_held(tmp_path):
    wire = Wire(tmp_path)
    found: list[pb.Task] = []
    stubs = [wire.stub(name) for name in NAMES]
    held = [
        threading.Thread(target=lambda one=one: found.append(one.Next(READY, timeout=20))) for one in stubs
    ]
    for thread in held:
        thread.start()
    until(lambda: all(wire.hall.station(name).presence._open for name in NAMES))
    wire.gate.stop()
    for thread in held:
        thread.join(5)
    assert found == [pb.Task(), pb.Task()]
    wire.close()


def test_a_port_that_is_taken(wire):
    settings = wire.coordinator.settings.model_copy(update={"port": wire.gate.port})
    second = CoordinatorGate(Coordinator(wire.coordinator.folder, settings), connect=wire.fleets.__getitem__)
    with pytest.raises(NotReadyError):
        second.run()


@pytest.mark.slow
def test_the_process_survives_kill_and_ends_cleanly(tmp_path):
    """kill -9 and a new start; SIGTERM. The SuperLink is away all the time."""
    folder = tmp_path / "hub"
    made = make(CoordinatorSettings(name="roads", port=0, join_port=0, flower_port=1), folder)
    (made.flower / "root.crt").write_bytes(made.root.read_bytes())
    command = [sys.executable, "-m", "fedfsd.coordinator.coordinator_gate", "--coordinator", str(folder)]
    log = folder / "log" / "gate.jsonl"
    for starts, number in enumerate((signal.SIGKILL, signal.SIGTERM), 1):
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            until(lambda n=starts: log.exists() and log.read_text().count('"ready"') == n, 60)
            process.send_signal(number)
            assert process.wait(10) == (0 if number == signal.SIGTERM else -9)
        finally:
            process.kill()
            process.wait()
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"
