"""The region's gate as a process: over TLS, alone on its folder, obeying its operator, ending in time."""

from __future__ import annotations

import datetime
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import operator_kit
import pytest
from node import station_kit as kit
from node.coordinator_fake import Coordinator, Direct
from pki_kit import hub_border

from fedfsd import canonical
from fedfsd.border import authority
from fedfsd.coordinator import invite, new_coordinator
from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.errors import BudgetError, FedfsdError, FormatError, NotReadyError
from fedfsd.ledger.store import Store
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.node import control, join, region_gate, running, up
from fedfsd.node.control import Control, ask
from fedfsd.node.courier import Courier
from fedfsd.node.node import Node, open_node

PLAN = operator_kit.plan()


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Iterator[tuple[Node, Coordinator]]:
    """A region that joined, and the coordinator's border on loopback."""
    path = tmp_path_factory.mktemp("joined")
    made = new_coordinator.make(new_coordinator.settings("hub", port=0, join_port=0), path / "hub")
    enrolment, port = serve_enrolment(made)
    hub = open_coordinator(made.folder, overrides=[f"join_port={port}"])
    node = open_node(kit.folder(path))
    today = datetime.datetime.now(datetime.UTC).date()
    request = join.prepare(node, invite.invite(hub, "EU", today=today), officer=None)
    assert not join.fetch_certificate(node)
    invite.confirm(hub, "EU", said=request.fingerprint)
    assert join.fetch_certificate(node)
    enrolment.stop(0).wait()
    (path / "memory").mkdir()
    coordinator = Coordinator(path / "memory", key=hub.key)
    with hub_border(hub, coordinator) as address:
        settings = node.folder / "region.toml"
        text = settings.read_text(encoding="utf-8")
        lines = [one for one in text.splitlines() if "coordinator =" not in one]
        lines.insert(lines.index("[border]") + 1, f'coordinator = "{address}"')
        settings.write_text("\n".join(lines), encoding="utf-8")
        yield open_node(node.folder), coordinator


@contextmanager
def serving(node: Node, monkeypatch) -> Iterator[list[Exception]]:
    """The gate in a thread of this process, its runner played; gives what it ended with."""
    ended: list[Exception] = []
    stop = threading.Event()
    monkeypatch.setattr(region_gate, "Runner", lambda socket, mine: kit.RunnerFake(mine))

    def run() -> None:
        try:
            region_gate.serve(node, stop=stop)
        except FedfsdError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait(lambda: ended or ask(node, {"op": "status"})["connection"] == "open")
        yield ended
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def test_a_round_over_tls_paused_and_resumed(joined, monkeypatch):
    node, hub = joined
    kit.approve(node.folder, PLAN)
    with serving(node, monkeypatch):
        assert ask(node, {"op": "commit", "plan": PLAN.hash}) == {"commitment": kit.commitment(PLAN.hash)}
        assert running.hold(node, paused=True)
        hub.ask(PLAN, 1, np.zeros(operator_kit.WITNESS_SIZE, "<f4").tobytes())
        wait(lambda: ask(node, {"op": "status"})["outbox"] == 1)
        assert ask(node, {"op": "status"})["paused"]
        assert "Offer" not in hub.calls
        assert running.hold(node, paused=False)
        hub.wait(lambda: hub.received)
        wait(lambda: ask(node, {"op": "status"})["outbox"] == 0)
        found = ask(node, {"op": "status"})
        assert found["last_round"] == {"plan": PLAN.hash, "round": 1, "outcome": "received"}
        assert found["runner"]
        assert 80 < found["certificate_days"] <= 90
        ask(node, {"op": "approve-notify"})
        running.halt(node)
    assert not running.hold(node, paused=False)


@pytest.mark.parametrize("damage", ["garbage", "another", "missing"])
def test_a_key_that_is_not_the_certificates_is_refused_at_once(joined, damage):
    node, _ = joined
    path = node.folder / "tls" / "region.key"
    kept = path.rename(path.with_name("kept"))
    if damage == "garbage":
        path.write_text("garbage")
        path.chmod(0o600)
    if damage == "another":
        authority.write_key(authority.new_key(), path)
    try:
        with pytest.raises(NotReadyError, match="new invitation") as refused:
            region_gate.serve(node, stop=threading.Event())
    finally:
        kept.replace(path)
    assert refused.value.place == str(path)


def test_a_second_gate_on_one_folder_is_refused(joined, monkeypatch):
    node, _ = joined
    with serving(node, monkeypatch), pytest.raises(NotReadyError, match="is already running"):
        region_gate.serve(node, stop=threading.Event())


def test_a_region_that_has_not_joined_says_what_to_do(tmp_path):
    node = open_node(kit.folder(tmp_path))
    with pytest.raises(NotReadyError, match="--join"):
        region_gate.serve(node, stop=threading.Event())


@pytest.mark.parametrize("days", [-3, 200])
def test_a_wrong_clock_is_told_in_one_line(joined, monkeypatch, days):
    node, _ = joined
    right = datetime.datetime

    class Clock(right):
        @classmethod
        def now(cls, zone=None):
            return right.now(zone) + datetime.timedelta(days=days)

    monkeypatch.setattr(join.datetime, "datetime", Clock)
    with pytest.raises(NotReadyError, match="set the clock"):
        region_gate._dial(node)


def test_an_expired_certificate_is_told_to_people(joined, monkeypatch):
    """What ``region up`` and ``region status`` say while the gate runs and cannot connect."""
    node, coordinator = joined
    right = datetime.datetime

    class Later(right):
        @classmethod
        def now(cls, zone=None):
            return right.now(zone) + datetime.timedelta(days=authority.DAYS + 6, hours=1)

    monkeypatch.setattr(join.datetime, "datetime", Later)
    with kit.working(node.folder, coordinator, lambda: region_gate._dial(node)) as made:
        wait(lambda: made.tally.objection)
        said = made.tally.document()["objection"]
    assert "one that expired 6 days ago" in said
    assert "fedfsd coordinator invite EU" in said
    pulse = up.Pulse(node)
    monkeypatch.setattr(pulse, "says", {"objection": said}.get)
    gate, _ = up.processes(node, node.folder, test_only=False, gate_user=None, train_user=None, pulse=pulse)
    assert gate.trouble is not None
    assert gate.trouble() == said


@pytest.mark.slow
def test_the_process_ends_when_told_and_begins_again_after_a_kill(joined):
    node, _ = joined
    command = [sys.executable, "-m", "fedfsd.node.region_gate", "--region", str(node.folder)]
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command)
        try:
            pid = process.pid
            wait(lambda pid=pid: ask(node, {"op": "status"})["pid"] == pid)
            process.send_signal(end)
            assert process.wait(20) == (0 if end == signal.SIGTERM else -end)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def desk(joined, tmp_path):
    """A control socket whose operations a test gives, and the node whose it is."""

    def refuse(_):
        raise BudgetError("plan", got="too much", expected="less", hint="wait")

    def fail(_):
        raise ValueError("/data/secret")

    folder = tmp_path / "run"
    folder.mkdir()
    made = Control(
        folder, {"echo": lambda request: {"said": request["text"]}, "refuse": refuse, "fail": fail}
    )
    made.start()
    yield Node(tmp_path, joined[0].settings)
    made.close()


def test_an_answer_and_an_error_reach_the_operator(desk):
    assert ask(desk, {"op": "echo", "text": "x" * 60_000}) == {"said": "x" * 60_000}
    with pytest.raises(BudgetError, match="got too much, expected less; fix: wait"):
        ask(desk, {"op": "refuse"})
    with pytest.raises(NotReadyError) as caught:
        ask(desk, {"op": "fail"})
    assert "secret" not in str(caught.value)
    with pytest.raises(NotReadyError, match="an unknown request"):
        ask(desk, {"op": "format the disk"})


@pytest.mark.parametrize("text", [b"\n", b"[]\n", b'{"op": []}\n', b"[" * 50_000 + b"\n", b"x" * 70_000, b""])
def test_nonsense_on_the_control_socket_does_no_harm(desk, text):
    with (
        control.address(desk.folder / "run" / control.SOCKET) as address,
        socket.socket(socket.AF_UNIX) as line,
    ):
        line.connect(address)
        with suppress(OSError):
            line.sendall(text)
            line.shutdown(socket.SHUT_WR)
        answer = line.recv(65_536)
    assert not answer or "error" in json.loads(answer)
    assert ask(desk, {"op": "echo", "text": "still here"})


def test_nobody_to_ask(tmp_path, joined):
    with pytest.raises(NotReadyError, match="no running gate"):
        ask(Node(tmp_path, joined[0].settings), {"op": "status"})


def test_metrics_hold_no_loss(joined, tmp_path):
    node, hub = joined
    with kit.station(node.folder, hub) as made:
        made.tally.stands(made.ledger.state, outbox=2, days=50, plans=3, paused=True, behind=1)
        made.tally.round(PLAN.hash, 1, "budget")
        text = made.tally.metrics.text()
        (account,) = made.ledger.state.accounts.values()
    assert "fedfsd_outbox_depth 2.0" in text
    assert 'fedfsd_epsilon_spent{data_set="fleet-2026"}' in text
    used = account.balance.spent + account.balance.held  # what an open plan holds is not left
    at = epsilon_lifetime(used, alpha=account.grant.alpha, delta=account.grant.delta) if used else 0.0
    assert (
        made.tally.metrics.value("fedfsd_epsilon_left", data_set="fleet-2026") == account.grant.epsilon - at
    )
    assert "fedfsd_plans_waiting 3.0" in text
    assert 'fedfsd_refusals_total{code="budget"} 1.0' in text


def wait(holds, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(NotReadyError):
            if holds():
                return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_gate_stops_where_a_newer_release_wrote_in_its_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(region_gate, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(region_gate, "_warm", lambda: None)
    monkeypatch.setattr(join, "peer", lambda node: SimpleNamespace(days_left=100))
    (tmp_path / "hub").mkdir()
    hub, eu = Coordinator(tmp_path / "hub"), kit.folder(tmp_path)
    with kit.station(eu, hub) as made:
        with closing(Store(made.node.ledger, made.node.mirror)) as other, other.transaction():
            seq = made.ledger.state.size
            other.add(seq, canonical.encode({"format": 9, "seq": seq, "type": "something else"}))
        with pytest.raises(FormatError, match=f"entry {seq}: got format 9, .* upgrade fedfsd"):
            region_gate._work(made, Courier(made, lambda: Direct(hub)))
    (told,) = [one for one in (eu / "log" / "gate.jsonl").read_text().splitlines() if '"stopped"' in one]
    assert "upgrade fedfsd" in told
