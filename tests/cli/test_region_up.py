"""``fedfsd region up``: what it runs and how it says so; and the live part of ``region status``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from operator_kit import region as ready

from fedfsd.errors import NotReadyError
from fedfsd.node import control, up
from fedfsd.node.node import Node, open_node
from fedfsd.node.running import live
from fedfsd.service import lock
from fedfsd.service.supervise import LOCK, STATE, standing

pytest_plugins = ["typing_user"]
GATE = {"connection": "open", "runner": True, "paused": False, "outbox": 0, "rounds": {"received": 2}}


@pytest.fixture
def eu(folder) -> Node:
    """A region's folder with a runner's folder in it."""
    made = open_node(ready(folder))
    (made.folder / "train").mkdir()
    (made.folder / "train" / "train.toml").touch()
    (made.folder / "tls.next").mkdir(mode=0o700)  # asked for a certificate
    return made


def answering(node: Node, answer: dict) -> closing:
    """A gate that says this of itself."""
    (node.folder / "run").mkdir(exist_ok=True)
    made = control.Control(node.folder / "run", {"status": lambda _: answer})
    made.start()
    return closing(made)


# What it runs.


def test_the_one_with_the_data_has_no_network_and_prints_into_its_own_folder(eu):
    gate, runner = up.processes(
        eu, eu.folder / "train", test_only=True, gate_user="a", train_user="b", pulse=up.Pulse(eu)
    )
    assert (gate.user, gate.network, gate.output) == ("a", True, None)
    assert (runner.user, runner.network, runner.output) == (
        "b",
        False,
        (eu.folder / "train" / "runner.out").absolute(),
    )
    assert gate.argv[-5:] == [
        "-m",
        "fedfsd.node.region_gate",
        "--region",
        str(eu.folder.absolute()),
        "--test-only",
    ]
    train = str((eu.folder / "train").absolute())
    assert runner.argv[-5:] == ["-m", "fedfsd.runner", "--train", train, "--test-only"]
    assert runner.env["FLWR_TELEMETRY_ENABLED"] == "0"


def test_ready_is_what_the_gate_says(eu):
    def asked() -> tuple[bool, bool]:
        gate, runner = up.processes(
            eu, eu.folder / "train", test_only=False, gate_user=None, train_user=None, pulse=up.Pulse(eu)
        )
        return gate.ready(), runner.ready()

    assert asked() == (False, False)
    for answer, expected in (
        (GATE, (True, True)),
        (GATE | {"connection": "waiting"}, (False, True)),
        (GATE | {"runner": False}, (True, False)),
    ):
        with answering(eu, answer):
            assert asked() == expected


def test_without_a_runners_folder_or_on_a_folder_that_is_up(eu, fedfsd):
    said = fedfsd("region", "up", "--region", "eu", "--train", "nowhere")
    assert said.code == 4
    assert "--train names it" in said.err
    with lock.hold(eu.folder / LOCK, what=up.WHAT):
        said = fedfsd("region", "up", "--region", "eu")
    assert said.code == 4
    assert "is already running" in said.err


def test_what_no_restart_can_mend_is_refused_before_anything_starts(eu, fedfsd):
    policy = eu.folder / "policy.toml"
    text = policy.read_text(encoding="utf-8")
    policy.write_text(text.replace("\nroster = ", "\n# roster = "), encoding="utf-8")
    said = fedfsd("region", "up", "--region", "eu")
    assert (said.code, "policy.toml: roster: is missing" in said.err) == (3, True)
    policy.write_text(text, encoding="utf-8")
    (eu.folder / "tls.next").rmdir()
    said = fedfsd("region", "up", "--region", "eu")
    assert (said.code, "no invitation yet" in said.err) == (4, True)
    (eu.folder / "ledger" / "ledger.sqlite").unlink()
    said = fedfsd("region", "up", "--region", "eu")
    assert (said.code, "fix: fedfsd region add the signed genesis" in said.err) == (4, True)
    assert not (eu.folder / STATE).exists()


STANDS_IN = """
import sys
from fedfsd.cli import main
from fedfsd.node import up
from fedfsd.service.child import Process
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
up.processes = lambda *_, **__: [Process("gate", sleep), Process("runner", sleep, network=False)]
main.run(["region", "up", "--region", "eu"])
"""


def test_up_says_what_it_does_not_enforce_and_ends_cleanly(eu):
    with subprocess.Popen([sys.executable, "-c", STANDS_IN], stderr=subprocess.PIPE, text=True) as process:
        found = None
        while not found or not all(row["ready"] for row in found["processes"]):
            assert process.poll() is None, process.stderr.read()
            found = standing(eu.folder)
            time.sleep(0.02)
        assert found["pid"] == process.pid
        assert [row["name"] for row in found["processes"]] == ["gate", "runner"]
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "not enforced: gate and runner are one user" in text
    assert "region EU is ready after" in text
    assert standing(eu.folder) is None
    for row in found["processes"]:
        assert not Path(f"/proc/{row['pid']}").exists()
    assert (eu.folder / STATE).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_two_users_meet_at_the_socket_and_nowhere_else(eu):
    gate, train = "64101", "64102"
    with pytest.raises(NotReadyError, match=r"chown -R 64101"):
        up._lay_out(eu, eu.folder / "train", gate, train)
    for path in (eu.folder, *eu.folder.rglob("*")):
        inside = path.is_relative_to(eu.folder / "train")
        os.chown(path, int(train if inside else gate), int(train if inside else gate))
    outside = eu.folder.with_name("outside")
    (eu.folder / "train").rename(outside)
    up._lay_out(eu, outside, gate, train)
    run = eu.folder / "run"
    for path, mode in ((eu.folder, 0o710), (run, 0o2710), (eu.folder / "log", 0o700)):
        assert path.stat().st_mode & 0o7777 == mode
    assert (run.stat().st_uid, run.stat().st_gid) == (64101, 64102)
    others = set(eu.folder.iterdir()) - {run}
    assert all(path.stat().st_mode & 0o077 == 0 for path in others)
    run.rmdir()
    elsewhere = eu.folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o755)
    run.symlink_to(elsewhere)
    os.lchown(run, 64101, 64101)
    with pytest.raises(OSError):  # noqa: PT011
        up._lay_out(eu, outside, gate, train)
    assert elsewhere.stat().st_uid == 0


# The live part of the status.


def test_nothing_runs(eu, fedfsd):
    found = fedfsd("region", "status", "--region", "eu", "--json").document
    assert (found["ready"], found["up"], found["gate"], found["own"]) == (False, None, None, None)
    assert found["grants"][0]["left"] > 0  # the ledger's part is as it was
    text = fedfsd("region", "status", "--region", "eu").out
    assert "processes: no fedfsd region up runs here\ngate: no answer\n" in text


def test_all_runs_and_the_own_figure_stays_here(eu, fedfsd):
    rows = [
        {"name": "gate", "pid": 7, "ready": True, "restarts": 0, "exit_code": None, "said": None},
        {"name": "runner", "pid": None, "ready": False, "restarts": 3, "exit_code": -9, "said": "\x1b[2J"},
    ]
    figures = json.dumps({"plan": "ab" * 32, "round": 4, "fde_m": 1.2345678, "windows": None})
    (eu.folder / "train" / "figures.jsonl").write_text(f"{figures}\n{figures[:20]}", encoding="utf-8")
    gate = GATE | {"paused": True, "outbox": 2, "pending": ["cd" * 32], "bytes": {"out": 57_224}}
    gate["last_round"] = {"plan": "ab" * 32, "round": 4, "outcome": "received"}
    gate["refusals"] = {"region_unavailable": 1}
    with answering(eu, gate), lock.hold(eu.folder / LOCK, what=up.WHAT):
        state = {"pid": 1, "since": "2026-11-22T10:00:00+00:00", "processes": rows}
        (eu.folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        found = live(eu, eu.folder / "train")
        text = fedfsd("region", "status", "--region", "eu").out
    assert found["ready"]
    assert found["own"]["fde_m"] == 1.2345678
    assert "gate process 7; runner down, ended with -9, restarted 3 times (last: \\x1b[2J)" in text
    assert "connected, runner there, PAUSED: no update leaves until fedfsd region resume, 2 in the" in text
    assert "last round: plan abababab, round 4, outcome received; total: received 2\n" in text
    assert "refused or failed since the start: region unavailable 1; log/gate.jsonl, or region.log" in text
    assert "sent 57 kB, received 0 B\n" in text
    assert "plan cdcdcdcdcdcd waits for approval: fedfsd region plan cdcdcdcdcdcd\n" in text
    assert "on its own test vehicles (never leaves the region): plan abababab, round 4, fde m 1.235\n" in text


def test_a_supervisor_that_was_killed_is_not_believed_from_its_file(eu):
    (eu.folder / "run").mkdir()
    (eu.folder / STATE).write_text('{"pid": 1, "processes": []}', encoding="utf-8")
    assert live(eu, eu.folder / "train")["up"] is None
