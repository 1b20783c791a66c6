"""A runner that does as it likes: nothing of it is released, the gate goes on, and its log says why."""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress

import numpy as np
import pytest
from books import rounds_in
from hypothesis import given
from hypothesis import strategies as some
from plan.sample import REGION, WITNESS_SIZE, noise_alone, planned, zeros
from runner.runner_kit import faking, gate_of, listening

from fedfsd import canonical
from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import frame, message, outcome
from fedfsd.gate.frame import FrameError, Frames
from fedfsd.gate.gate import open_ledger
from fedfsd.gate.message import (
    Committed,
    Done,
    Failed,
    Hello,
    Let,
    ReleaseCall,
    ReserveCall,
    Reserved,
    RoundTask,
    SettleCall,
    Settled,
    Unwelcome,
    Welcome,
)
from fedfsd.gate.policy import ModelPin
from fedfsd.ledger import program as programs
from fedfsd.plan.plan import WITNESS

PLAN = planned(mode="rehearsal")
ARRAYS = zeros()
SHA256 = gate_arrays.sha256(ARRAYS, PLAN.model.arrays)
SIZE = 4 * PLAN.model.size
Act = Callable[[Frames, socket.socket], None]


def noise(scale: float = 1.0) -> dict[str, np.ndarray]:
    """An update that is the planned noise and nothing else."""
    return gate_arrays.view(noise_alone(PLAN, REGION, 1, scale=scale), PLAN.model.arrays)


GOOD = gate_arrays.to_bytes(noise(), PLAN.model.arrays)


def spoiled(where: int, value: float) -> bytes:
    """The good update with one number replaced."""
    flat = np.frombuffer(GOOD, "<f4").copy()
    flat[where] = value
    return flat.tobytes()


@pytest.fixture
def gate(tmp_path):
    return gate_of(tmp_path / "gate", PLAN)


def task(frames: Frames) -> RoundTask:
    return message.receive(frames, RoundTask, seconds=10, max_body=2**22, body_of=RoundTask)[0]


def reserve(frames: Frames, **changes: object) -> None:
    asked = {"plan": PLAN.hash, "round": 1, "arrays": SHA256, "program": programs.installed().hash, **changes}
    message.send(frames, ReserveCall(**asked))
    message.receive(frames, Reserved, seconds=10)


def sending(content: bytes, **changes: object) -> Act:
    """Book as one should, then release ``content``; a refusal is answered as agreed."""

    def act(frames: Frames, _: socket.socket) -> None:
        task(frames)
        reserve(frames)
        message.send(frames, ReleaseCall(**{"plan": PLAN.hash, "round": 1, **changes}), content)
        message.receive(frames, message.NotAllowed, seconds=10)
        message.send(frames, Failed(plan=PLAN.hash, code="refused"))

    return act


def booking(**changes: object) -> Act:
    def act(frames: Frames, _: socket.socket) -> None:
        task(frames)
        reserve(frames, **changes)

    return act


def saying(*said: object, body: bytes = b"") -> Act:
    """Answer the task with messages, whatever they are."""

    def act(frames: Frames, _: socket.socket) -> None:
        task(frames)
        for one in said:
            message.send(frames, one, body)

    return act


def raw(content: bytes) -> Act:
    """Answer the task with bytes."""

    def act(frames: Frames, connection: socket.socket) -> None:
        task(frames)
        connection.sendall(content)

    return act


def headed(header: bytes, body: int = 0) -> bytes:
    return struct.pack(">IQ", len(header), body) + header


OTHER = "1" * 64
DONE = Done(plan=PLAN.hash, round=1, entry_hash=OTHER, sha256=OTHER)
NESTED = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
HOSTILE: dict[str, Act] = {
    "books another plan": booking(plan=OTHER),
    "books another round": booking(round=2),
    "books other arrays": booking(arrays=OTHER),
    "books for another program": booking(program=OTHER),
    "releases another plan": sending(GOOD, plan=OTHER),
    "releases another round": sending(GOOD, round=2),
    "releases without booking": saying(ReleaseCall(plan=PLAN.hash, round=1), body=GOOD),
    "is done without releasing": saying(DONE),
    "settles": saying(SettleCall(plan=PLAN.hash)),
    "an extra array": sending(GOOD + bytes(400)),
    "a byte more": sending(GOOD + b"\0"),
    "a byte less": sending(GOOD[:-1]),
    "nothing": sending(b""),
    "float64": sending(np.frombuffer(GOOD, "<f4").astype("<f8").tobytes()),
    "NaN": sending(spoiled(0, np.nan)),
    "infinity": sending(spoiled(3, -np.inf)),
    "a huge number": sending(spoiled(3, 1e30)),
    "raw rows without noise": sending(bytes(SIZE)),
    "half the noise": sending(gate_arrays.to_bytes(noise(0.5), PLAN.model.arrays)),
    "twice the noise": sending(gate_arrays.to_bytes(noise(2.0), PLAN.model.arrays)),
    "zeros for a header": raw(bytes(64)),
    "garbage": raw(os.urandom(4096)),
    "a huge header": raw(struct.pack(">IQ", 2**32 - 1, 0)),
    "a gigabyte": raw(headed(b"{}", 2**30)),
    "an exabyte": raw(headed(b"{}", 2**60)),
    "no JSON": raw(headed(b"reserve")),
    "a list": raw(headed(b"[1]")),
    "JSON that is not canonical": raw(headed(b'{"op": "failed","code":"refused","plan":null}')),
    "deep JSON": raw(headed(NESTED)),
    "half a surrogate": raw(headed(b'{"op":"\\ud800"}')),
    "a big number": raw(headed(b'{"op":' + b"9" * 5000 + b"}")),
    "an op that is none": raw(headed(b'{"op":["reserve"]}')),
    "an unknown op": raw(headed(b'{"op":"shell"}')),
    "a text beside the code": raw(
        headed(canonical.encode({"op": "failed", "plan": PLAN.hash, "code": "refused", "text": "vehicle 17"}))
    ),
    "a code that is none": raw(
        headed(canonical.encode({"op": "failed", "plan": PLAN.hash, "code": "vehicle 17"}))
    ),
    "a body where none may be": saying(Failed(plan=PLAN.hash, code="budget"), body=b"rows"),
    "a commitment for a round": saying(Committed(plan=PLAN.hash, commitment=OTHER)),
}


ENDING = {"a huge number", "raw rows without noise", "half the noise", "twice the noise"}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_runner_releases_nothing(gate, tmp_path, what, caplog):
    caplog.set_level(logging.INFO)
    with listening(gate, tmp_path, wait_seconds=2, task_seconds=5) as runner:
        with faking(tmp_path, HOSTILE[what]), pytest.raises(RefusedError) as caught:
            runner.round(PLAN, 1, ARRAYS)
        assert "vehicle 17" not in f"{caught.value}{caplog.text}"
        said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert {"runner_not_believed", "gate_refuses"} & set(said)
        assert [one["type"] for one in rounds_in(tmp_path / "gate")] in ([], ["reserve"])
        if gate.ledger.state.runs[PLAN.hash].ended:  # an update that is not the plan's ends it
            assert what in ENDING
            with pytest.raises(RefusedError, match="ended here with an incident in round 1"):
                gate.reserve(PLAN, 1, ARRAYS)
            return
        assert what not in ENDING
        with faking(tmp_path, honest):  # and the gate goes on
            assert runner.round(PLAN, 1, ARRAYS).content == GOOD
    assert [one["type"] for one in rounds_in(tmp_path / "gate")] == ["reserve", "release"]
    with closing(open_ledger(tmp_path / "gate")) as ledger:  # which reads and checks all of it
        assert ledger.state.runs[PLAN.hash].newest == 1


def honest(frames: Frames, _: socket.socket) -> None:
    let = released(frames)
    message.send(frames, Done(plan=PLAN.hash, round=1, entry_hash=let.entry_hash, sha256=let.sha256))
    while True:  # until the gate ends it
        message.receive(frames, RoundTask, seconds=10)


def released(frames: Frames, round: int = 1) -> Let:
    task(frames)
    reserve(frames, round=round)
    message.send(frames, ReleaseCall(plan=PLAN.hash, round=round), GOOD)
    return message.receive(frames, Let, seconds=10)[0]


def test_what_is_released_stays_so_whatever_the_runner_says_then(gate, tmp_path):
    def twice(frames: Frames, _: socket.socket) -> None:
        released(frames)
        message.send(frames, ReleaseCall(plan=PLAN.hash, round=1), spoiled(5, 0.0))

    with listening(gate, tmp_path, wait_seconds=2) as runner:
        with faking(tmp_path, twice):
            first = runner.round(PLAN, 1, ARRAYS)
        assert first.content == GOOD
        assert runner.round(PLAN, 1, ARRAYS) == first  # without any runner
    assert len(rounds_in(tmp_path / "gate")) == 2


def test_an_answer_left_over_is_not_taken_for_the_next_round(gate, tmp_path):
    def double(frames: Frames, _: socket.socket) -> None:
        let = released(frames)
        done = Done(plan=PLAN.hash, round=1, entry_hash=let.entry_hash, sha256=let.sha256)
        message.send(frames, done)
        message.send(frames, done)
        message.receive(frames, RoundTask, seconds=10)

    with listening(gate, tmp_path, wait_seconds=0.2) as runner, faking(tmp_path, double):
        runner.round(PLAN, 1, ARRAYS)
        with pytest.raises(FedfsdError):
            runner.round(PLAN, 2, ARRAYS)
    assert len(rounds_in(tmp_path / "gate")) == 2


def test_the_last_round_ends_the_plan(gate, tmp_path):
    def act(frames: Frames, _: socket.socket) -> None:
        let = released(frames, round=3)
        message.send(frames, SettleCall(plan=PLAN.hash))
        message.receive(frames, Settled, seconds=10)
        message.send(frames, Done(plan=PLAN.hash, round=3, entry_hash=let.entry_hash, sha256=let.sha256))
        asked, _ = message.receive(frames, SettleCall, seconds=10)
        message.send(frames, Settled(plan=asked.plan))

    with listening(gate, tmp_path, wait_seconds=2) as runner, faking(tmp_path, act):
        assert runner.round(PLAN, 3, ARRAYS).content == GOOD
        assert gate.ledger.state.runs[PLAN.hash].settled


@pytest.mark.parametrize("act", [lambda *_: time.sleep(1), lambda frames, _: time.sleep(task(frames).round)])
def test_a_silent_runner_is_given_up(gate, tmp_path, act):
    with listening(gate, tmp_path, wait_seconds=0.05, task_seconds=0.2) as runner, faking(tmp_path, act):
        with pytest.raises(NotReadyError):
            runner.round(PLAN, 1, ARRAYS)
        assert not runner.connected
    assert rounds_in(tmp_path / "gate") == []


def test_a_frame_that_never_ends_is_given_up(gate, tmp_path, monkeypatch):
    def drip(frames: Frames, connection: socket.socket) -> None:
        task(frames)
        while True:
            connection.sendall(b"\0")
            time.sleep(0.05)

    monkeypatch.setattr(frame, "FRAME_SECONDS", 0.3)
    listener = listening(gate, tmp_path, wait_seconds=0.05, task_seconds=5)
    with listener as runner, faking(tmp_path, drip), pytest.raises(NotReadyError):
        runner.round(PLAN, 1, ARRAYS)


@pytest.mark.parametrize("code", outcome.FINDINGS)
def test_nothing_can_be_found_in_an_update_that_was_not_asked_for(gate, tmp_path, code):
    fake = Failed(plan=PLAN.hash, code=code)
    with listening(gate, tmp_path) as runner, faking(tmp_path, saying(fake)):
        with pytest.raises(RefusedError, match="expected an update to find it in"):
            runner.round(PLAN, 1, ARRAYS)
        assert gate.ledger.state.runs[PLAN.hash].ended is None


@pytest.mark.parametrize("code", [code for code in outcome.REFUSALS if code not in outcome.FINDINGS])
def test_a_failure_comes_back_as_its_kind(gate, tmp_path, code):
    error, fake = outcome.REFUSALS[code].error, Failed(plan=PLAN.hash, code=code)
    with listening(gate, tmp_path) as runner, faking(tmp_path, saying(fake)), pytest.raises(error) as caught:
        runner.round(PLAN, 1, ARRAYS)
    assert type(caught.value) is error
    assert outcome.of(caught.value) == code


def test_one_runner_at_a_time_and_a_new_one_after_it(gate, tmp_path):
    def wait(frames: Frames, _: socket.socket) -> None:
        message.receive(frames, RoundTask, seconds=10)

    with listening(gate, tmp_path, wait_seconds=1) as runner:
        assert not runner.connected
        with faking(tmp_path, wait):
            while not runner.connected:
                time.sleep(0.01)
            with pytest.raises(FedfsdError), faking(tmp_path, wait):
                raise AssertionError("a second runner")
            assert runner.connected
        with faking(tmp_path, honest):
            assert runner.round(PLAN, 1, ARRAYS).content == GOOD


@pytest.mark.parametrize(
    "hello", [{"region": "EU"}, {"version": message.VERSION + 1}, {"version": 2}, {"program": None}]
)
def test_a_runner_of_another_region_or_version_is_sent_away(gate, tmp_path, hello):
    said = {
        "version": message.VERSION,
        "region": REGION,
        "keys": (),
        "program": programs.installed(),
        **hello,
    }
    with listening(gate, tmp_path) as runner, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "gate.sock"))
        frames = Frames(connection)
        message.send(frames, Hello(**said))
        with pytest.raises((NotReadyError, FrameError)):
            message.receive(frames, Welcome, seconds=5)
        assert not runner.connected


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_runner_of_an_earlier_release_is_told_so(gate, tmp_path, version):
    """Gate and runner of a region are upgraded together."""
    with listening(gate, tmp_path), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "gate.sock"))
        frames = Frames(connection)
        frames.send({"op": "hello", "version": version, "region": REGION, "keys": []})
        answer, _ = message.receive(frames, Welcome, Unwelcome, seconds=5)
        assert answer == Unwelcome(version=message.VERSION)


def test_a_pin_of_one_file_is_written_as_it_first_was():
    pin = {"name": "theirs", "distribution": "d", "version": "1"}
    task = RoundTask(plan="0" * 64, round=1, document=1, pin=ModelPin(**pin, sha256="0" * 64))
    assert set(task.model_dump()) == {"op", "plan", "round", "document", "pin"}
    assert set(task.model_dump()["pin"]) == {*pin, "sha256"}


def test_only_the_runners_user_may_connect(gate, tmp_path):
    other = listening(gate, tmp_path, uid=os.getuid() + 1)
    with other, pytest.raises(FedfsdError), faking(tmp_path, honest):
        raise AssertionError("connected")


def test_the_socket_is_for_the_gate_and_its_group(gate, tmp_path):
    (tmp_path / "gate.sock").touch()  # left behind by a gate that was killed
    with listening(gate, tmp_path):
        assert (tmp_path / "gate.sock").stat().st_mode & 0o777 == 0o660
    assert not (tmp_path / "gate.sock").exists()


def test_closing_ends_a_round_that_waits(gate, tmp_path):
    began = []

    def act(frames: Frames, _: socket.socket) -> None:
        task(frames)
        began.append(time.monotonic())
        runner.close()

    with listening(gate, tmp_path) as runner, faking(tmp_path, act), pytest.raises(NotReadyError):
        runner.round(PLAN, 1, ARRAYS)
    assert time.monotonic() - began[0] < 20  # not after the days that training may take


def test_what_is_outside_policy_or_grant_never_reaches_a_runner(gate, tmp_path):
    asked = []

    def note(frames: Frames, _: socket.socket) -> None:
        asked.append(task(frames))

    strange = planned(mode="rehearsal", roster=29)
    with listening(gate, tmp_path, wait_seconds=1) as runner, faking(tmp_path, note):
        for plan, round, arrays in (
            (strange, 1, ARRAYS),
            (PLAN, 0, ARRAYS),
            (PLAN, 4, ARRAYS),
            (PLAN, 1, {**ARRAYS, WITNESS: np.full(WITNESS_SIZE, np.nan, np.float32)}),
            (PLAN, 1, {**ARRAYS, WITNESS: np.full(WITNESS_SIZE, 1e9, np.float32)}),
        ):
            with pytest.raises(RefusedError):
                runner.round(plan, round, arrays)
    assert asked == []


@given(some.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(content):
    one, other = socket.socketpair()
    with one, other:
        one.sendall(content)
        one.shutdown(socket.SHUT_WR)
        frames = Frames(other)
        with suppress(FrameError, frame.PeerGoneError):
            while True:
                message.receive(frames, ReserveCall, ReleaseCall, seconds=1, max_body=64, body_of=ReleaseCall)
