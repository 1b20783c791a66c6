"""``fedfsd region pause``, ``resume``, ``stop``: what they say and do, whether or not something runs."""

from __future__ import annotations

import signal
import threading
from contextlib import closing

import operator_kit
import pytest

from fedfsd.node.control import Control
from fedfsd.service import lock

pytest_plugins = ["typing_user"]


@pytest.fixture
def eu(folder):
    """A region in the empty folder."""
    return operator_kit.region(folder)


def test_pause_holds_also_where_nothing_runs(fedfsd, eu):
    said = fedfsd("region", "pause", "--region", eu)
    assert said.code == 0
    assert "no update leaves until fedfsd region resume" in said.out
    assert "no gate is running now" in said.out
    assert (eu / "paused").exists()
    assert fedfsd("region", "pause", "--region", eu, "--json").document == {
        "region": "EU",
        "paused": True,
        "running": False,
    }
    assert fedfsd("region", "resume", "--region", eu).code == 0
    assert not (eu / "paused").exists()
    assert fedfsd("region", "resume", "--region", eu).code == 0


def test_stop_where_nothing_runs_says_so(fedfsd, eu):
    said = fedfsd("region", "stop", "--region", eu, "--json")
    assert said.code == 4
    assert said.error["got"] == "no running gate"


def test_stop_waits_until_the_gate_has_ended(fedfsd, eu):
    (eu / "run").mkdir(exist_ok=True)
    told = threading.Event()

    def gate() -> None:
        with lock.hold(eu / "run" / "gate.pid", what="a gate"):
            control = Control(eu / "run", {"stop": lambda _: told.set() or {}})
            control.start()
            ready.set()
            told.wait(10)
            control.close()

    ready = threading.Event()
    thread = threading.Thread(target=gate)
    thread.start()
    ready.wait(10)
    assert fedfsd("region", "stop", "--region", eu).code == 0
    assert told.is_set()
    thread.join(5)
    assert not lock.held(eu / "run" / "gate.pid")


def test_stop_ends_the_supervisor(fedfsd, eu, monkeypatch):
    from fedfsd.node import running

    (eu / running.STATE).parent.mkdir(exist_ok=True)
    (eu / running.STATE).write_text('{"pid": 4711, "processes": []}', encoding="utf-8")
    with lock.hold(eu / running.LOCK, what="fedfsd region up"):
        sent = []
        monkeypatch.setattr(running.os, "kill", lambda pid, number: sent.append((pid, number)))
        monkeypatch.setattr(running, "STOP_SECONDS", 0.1)
        said = fedfsd("region", "stop", "--region", eu)
        assert said.code == 4  # it never ended
    assert sent == [(4711, signal.SIGTERM)]


def test_the_operators_no_reaches_the_gate(fedfsd, eu):
    plan = operator_kit.plan()
    (eu / "plans").mkdir(exist_ok=True)
    (eu / "plans" / f"{plan.hash}.json").write_text(plan.document(), encoding="utf-8")
    words = ["region", "refuse", plan.hash[:16], "--region", eu]
    assert fedfsd(*words, "--json").error["got"] == "no running gate"
    (eu / "run").mkdir(exist_ok=True)
    asked: list[str] = []
    with closing(
        Control(eu / "run", {"decline": lambda request: asked.append(request["plan"]) or {}})
    ) as gate:
        gate.start()
        said = fedfsd(*words)
    assert (said.code, asked) == (0, [plan.hash])
    assert said.out == f"plan {plan.name} ({plan.hash[:8]}): refused\n"
    assert fedfsd("region", "refuse", "0" * 16, "--region", eu).code == 4
