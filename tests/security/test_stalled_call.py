"""Calls that never bring their message: who opens them is known first, and holds up nobody but itself."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from pki_kit import Callers, Federation, hello, outcome

from fedfsd.border import border_pb2 as pb
from fedfsd.border import channel, doorkeeper, identity
from fedfsd.coordinator import enrolment_service, new_coordinator
from fedfsd.coordinator.enrolment_service import serve_enrolment

HELLO = "/fedfsd.border.v1.Border/Hello"
Code = grpc.StatusCode


@pytest.fixture
def roads(tmp_path) -> Federation:
    made = Federation(tmp_path / "roads")
    made.give("US", identity.region("roads", "US"))
    return made


def stalled(opened: grpc.Channel, method: str, over: threading.Event, *messages: bytes):
    """A call of ``method`` that says ``messages`` and then neither more nor that this was all."""

    def silent():
        yield from messages
        over.wait(20)

    return opened.stream_unary(method)(silent(), timeout=20)


def calls_of(opened: grpc.Channel, count: int, over: threading.Event, *messages: bytes, method: str = HELLO):
    found: list[Code] = []

    def one() -> None:
        found.append(outcome(lambda: stalled(opened, method, over, *messages))[0])

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    return found, threads


def test_a_region_that_stalls_calls_without_end_holds_up_nobody_else(roads, monkeypatch, caplog):
    """Twelve calls without a message on a border with four threads."""
    monkeypatch.setattr(doorkeeper, "AT_ONCE", 3)
    callers, over = Callers(), threading.Event()
    with roads.border(callers) as hub, roads.dial(hub, "US") as hostile, roads.dial(hub) as honest:
        found, threads = calls_of(hostile, 12, over)
        deadline = time.monotonic() + 10
        while len(found) < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found == [Code.RESOURCE_EXHAUSTED] * 9
        hello(honest)
        over.set()
        for thread in threads:
            thread.join(10)
    assert callers.seen == ["EU"]
    assert sorted(one.name for one in found[9:]) == ["INVALID_ARGUMENT"] * 3
    assert "too many calls at once" in caplog.text


@pytest.mark.parametrize("messages", [(), (pb.Greeting(versions=[1]).SerializeToString(),)])
def test_a_call_whose_message_does_not_come_is_ended(roads, monkeypatch, messages):
    """Nothing at all; or a message, and then no end of the call."""
    monkeypatch.setattr(doorkeeper, "ARRIVAL_SECONDS", 0.2)
    callers, over = Callers(), threading.Event()
    with roads.border(callers) as hub, roads.dial(hub, "US") as hostile:
        found, threads = calls_of(hostile, 2, over, *messages)
        for thread in threads:
            thread.join(10)
        over.set()
    assert found == [Code.CANCELLED] * 2
    assert callers.seen == []


def test_two_messages_where_one_belongs_are_refused(roads):
    callers, over = Callers(), threading.Event()
    over.set()
    said = pb.Greeting(versions=[1]).SerializeToString()
    with roads.border(callers) as hub, roads.dial(hub) as opened:
        assert outcome(lambda: stalled(opened, HELLO, over, said, said)) == (Code.INVALID_ARGUMENT, "")
        hello(opened)
    assert callers.seen == ["EU"]


def test_where_anybody_may_knock_one_address_holds_up_nobody(roads, tmp_path):
    """The port where certificates are asked for: no region is known there, only where a call comes from."""
    hub, over = (
        new_coordinator.make(new_coordinator.settings("hub", port=0, join_port=0), tmp_path / "hub"),
        threading.Event(),
    )
    server, port = serve_enrolment(hub)
    uri = str(hub.identity)
    files = {"root": hub.root, "key": None, "certificate": None, "expected_uri": uri}
    assert doorkeeper.AT_ONCE < enrolment_service.WORKERS
    try:
        with channel.open_channel(f"127.0.0.1:{port}", **files) as opened:
            method = "/fedfsd.border.v1.Enrolment/Join"
            count = doorkeeper.AT_ONCE + 4
            found, threads = calls_of(opened, count, over, method=method)
            deadline = time.monotonic() + 10
            while len(found) < 4 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert found == [Code.RESOURCE_EXHAUSTED] * 4
            over.set()
            for thread in threads:
                thread.join(10)
            assert set(found[4:]) == {Code.INVALID_ARGUMENT}
    finally:
        over.set()
        server.stop(0).wait()
