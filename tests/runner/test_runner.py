"""A round over the socket is the round in one process, and survives the death of its runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from books import rounds_in
from conftest import drives
from plan.sample import REGION, planned
from runner.runner_kit import ARRAYS, SHAPES, forked, gate_of, listening, rehearsal, threaded, train_folder

from fedfsd.drive import table
from fedfsd.engine import randomness
from fedfsd.errors import BudgetError, NotReadyError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import frame
from fedfsd.ledger import program as programs
from fedfsd.ledger.digest import key_commitment
from fedfsd.node import listener, runner_link
from fedfsd.runner import process
from fedfsd.runner import region as region_module
from fedfsd.runner.region import LOG, RegionConfig, open_region, run_round
from fedfsd.task.forecasting import window
from fedfsd.task.forecasting.window import WindowSpec


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tables") / "synthetic.parquet"
    table.write(drives({REGION: 40, "EU": 5}, origin="synthetic"), path)
    return str(path)


def updated(content: bytes, plan):
    update = gate_arrays.view(content, plan.model.arrays)
    return {name: ARRAYS[name] + update[name] for name in ARRAYS}


def test_a_rehearsal_over_the_socket_gives_the_same_bytes_as_in_one_process(tmp_path, data):
    plan = rehearsal()
    gate_of(tmp_path / "here", plan)
    region = open_region(RegionConfig(REGION, data, str(tmp_path / "here"), "cpu", simulated=True))
    gate = gate_of(tmp_path / "gate", plan)
    with listening(gate, tmp_path) as runner, threaded(train_folder(tmp_path, data), data):
        arrays = ARRAYS
        for round in (1, 2, 3):
            there, here = runner.round(plan, round, arrays), run_round(region, arrays, plan, round)
            assert (there.content, there.sha256, there.entry) == (here.content, here.sha256, here.entry)
            assert runner.round(plan, round, arrays) == there  # sent again, not trained again
            arrays = updated(there.content, plan)
        assert gate.ledger.state.runs[plan.hash].settled
        deadline = time.monotonic() + 10
        figures = tmp_path / "train" / "figures.jsonl"
        while len(figures.read_text().splitlines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        lines = [json.loads(line) for line in figures.read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert rounds_in(tmp_path / "gate")[-1]["type"] == "release"
    assert len(rounds_in(tmp_path / "gate")) == 6


def test_the_run_key_is_made_read_and_destroyed_on_the_runners_side(tmp_path, data):
    plan = planned(SHAPES)
    gate = gate_of(tmp_path / "gate", plan)
    train = train_folder(tmp_path, data)
    with listening(gate, tmp_path, wait_seconds=1) as runner:
        with pytest.raises(NotReadyError):
            runner.commitment(plan.hash)
        with threaded(train, data):
            said = runner.commitment(plan.hash)
            assert said == runner.commitment(plan.hash)
            assert said == key_commitment(randomness.run_key(train / "keys", plan.hash, create=False))
            for round in (1, 2, 3):
                runner.round(plan, round, ARRAYS)
            assert not list((train / "keys").iterdir())
        # A runner that was away when its plan ended destroys the key when it comes back.
        randomness.run_key(train / "keys", plan.hash)
        randomness.run_key(train / "keys", "0" * 64)
        with threaded(train, data):
            assert [path.stem for path in (train / "keys").iterdir()] == ["0" * 64]
            runner.settle("0" * 64)
            assert not list((train / "keys").iterdir())


def test_a_runner_that_is_slow_to_load_is_waited_for(tmp_path, data, monkeypatch):
    """It has connected; what it does until it says hello takes as long as the machine is busy."""
    load, looks = process._loaded, []

    def held(folder, settings):
        os.kill(os.getpid(), signal.SIGSTOP)
        return load(folder, settings)

    def seen(self):
        looks.append(None)
        return progress(self)

    progress = frame.Progress.seen
    monkeypatch.setattr(process, "_loaded", held)
    monkeypatch.setattr(listener, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(frame.Progress, "seen", seen)
    monkeypatch.setattr(frame, "_SLICE_SECONDS", 0.01)
    monkeypatch.setattr(runner_link, "GREETING_SECONDS", 0.1)  # of idleness: it is held, not idle
    plan = planned(SHAPES)
    gate, train = gate_of(tmp_path / "gate", plan), train_folder(tmp_path, data, test_only=False)
    with listening(gate, tmp_path, wait_seconds=0.1) as runner, forked(train) as child:
        os.waitid(os.P_PID, child, os.WSTOPPED)
        while not runner._listener._greeting:
            assert not runner.connected
        said = []
        asking = threading.Thread(target=lambda: said.append(runner.commitment(plan.hash)))
        asking.start()
        while len(looks) < 50:  # five times as long as it waits for one that is idle, or never connected
            assert asking.is_alive()
        os.kill(child, signal.SIGCONT)
        asking.join(30)
    assert len(said[0]) == 64


def test_a_runner_killed_in_a_round_is_followed_by_one_that_sends_the_same(tmp_path, data, monkeypatch):
    plan, marker = rehearsal(), tmp_path / "training"
    gate_of(tmp_path / "here", plan)
    region = open_region(RegionConfig(REGION, data, str(tmp_path / "here"), "cpu", simulated=True))
    expected = run_round(region, ARRAYS, plan, 1)
    gate, train = gate_of(tmp_path / "gate", plan), train_folder(tmp_path, data)
    found = []

    def stall(*_):
        marker.touch()
        time.sleep(60)

    with listening(gate, tmp_path) as runner:
        with monkeypatch.context() as patch:
            patch.setattr(region_module, "_train", stall)
            with forked(train) as first:
                thread = threading.Thread(target=lambda: found.append(runner.round(plan, 1, ARRAYS)))
                thread.start()
                while not marker.exists():
                    time.sleep(0.01)
                os.kill(first, signal.SIGKILL)
        with forked(train):
            thread.join(timeout=60)
    (released,) = found
    assert released.content == expected.content
    assert [one["type"] for one in rounds_in(tmp_path / "gate")] == ["reserve", "release"]


def test_a_runner_whose_gate_ends_trains_no_further_and_comes_back(tmp_path, data, monkeypatch):
    plan, marker = rehearsal(local_steps=100, noise_multiplier=20.0), tmp_path / "training"
    step = region_module.local.private_step

    def slow(*_, **__):
        marker.touch()
        time.sleep(0.5)
        return step(*_, **__)

    def lost(runner):
        with pytest.raises(NotReadyError):
            runner.round(plan, 1, ARRAYS)

    first, train = gate_of(tmp_path / "gate", plan), train_folder(tmp_path, data)
    monkeypatch.setattr(region_module.local, "private_step", slow)
    with forked(train):
        with listening(first, tmp_path) as runner:
            thread = threading.Thread(target=lost, args=(runner,))
            thread.start()
            while thread.is_alive() and not marker.exists():
                time.sleep(0.01)
        thread.join(timeout=20)
        assert marker.exists()
        began = time.monotonic()
        with listening(gate_of(tmp_path / "gate"), tmp_path) as runner:
            assert runner.facts()["data"]
        assert time.monotonic() - began < 40  # the training that nobody waits for would take 50 s


def test_a_runner_that_ends_by_a_signal_ends_well(tmp_path, data):
    gate, train = gate_of(tmp_path / "gate", rehearsal()), train_folder(tmp_path, data)
    with listening(gate, tmp_path) as runner:
        child = os.fork()
        if child == 0:
            from fedfsd.runner.process import main

            code = 99
            try:
                code = main(["--train", str(train)])
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        while not runner.connected:
            time.sleep(0.01)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        while runner.connected:
            time.sleep(0.01)


@pytest.mark.parametrize("mode", ["rehearsal", "none"])
def test_a_runner_that_does_not_only_test_takes_private_plans_alone(tmp_path, data, mode):
    plan = planned(SHAPES, mode=mode)
    gate = gate_of(tmp_path / "gate", rehearsal(), planned(SHAPES))
    gate.policy = gate.policy.model_copy(update={"modes": ("private", "rehearsal", "none")})
    train = train_folder(tmp_path, data)
    serving = threaded(train, data, test_only=False)
    with listening(gate, tmp_path) as runner, serving, pytest.raises(RefusedError):
        runner.round(plan, 1, ARRAYS)
    assert rounds_in(tmp_path / "gate") == []


def test_what_the_ledger_refuses_is_refused_as_in_one_process(tmp_path, data):
    plan, other = rehearsal(), rehearsal(seed=2)
    gate = gate_of(tmp_path / "gate", plan)
    with listening(gate, tmp_path) as runner, threaded(train_folder(tmp_path, data), data):
        with pytest.raises(BudgetError):
            runner.round(other, 1, ARRAYS)
        first = runner.round(plan, 1, ARRAYS)
        with pytest.raises(BudgetError):
            runner.round(plan, 1, updated(first.content, plan))
        runner.round(plan, 2, ARRAYS)
        with pytest.raises(BudgetError):
            runner.round(plan, 1, ARRAYS)
        with pytest.raises(RefusedError):
            runner.round(plan, 4, ARRAYS)
        with pytest.raises(RefusedError):
            runner.round(plan, 3, {**ARRAYS, "extra": np.zeros(1, np.float32)})
    assert len(rounds_in(tmp_path / "gate")) == 4


CANARY = "canary-7f3a-Minister's-car"


def test_the_text_of_a_failure_stays_in_the_runners_folder(tmp_path, data, monkeypatch, caplog):
    plan = rehearsal()
    gate, train = gate_of(tmp_path / "gate", plan), train_folder(tmp_path, data)
    frames: list[object] = []

    def fail(*_):
        raise KeyError(CANARY, Path(data))

    from fedfsd.gate import frame

    taken = frame.Frames.receive
    monkeypatch.setattr(
        frame.Frames, "receive", lambda self, **how: frames.append(found := taken(self, **how)) or found
    )
    monkeypatch.setattr(region_module, "_train", fail)
    caplog.set_level("DEBUG")
    serving = threaded(train, data)
    with listening(gate, tmp_path) as runner, serving, pytest.raises(NotReadyError) as caught:
        runner.round(plan, 1, ARRAYS)
    assert CANARY in (train / "region.log").read_text()
    heard = str(frames) + caplog.text + str(caught.value) + str([vars(one) for one in caplog.records])
    assert "region_unavailable" in heard
    assert CANARY not in heard
    assert data not in heard


def test_what_a_runner_can_do_is_told_without_a_figure_of_the_data(tmp_path, data):
    gate = gate_of(tmp_path / "gate", rehearsal())
    with listening(gate, tmp_path) as runner:
        with threaded(train_folder(tmp_path, data), data):
            assert runner.facts(folder=str(tmp_path)) | {"tcp": None} == {
                "data": True,
                "device": "cpu",
                "tcp": None,
                "gate_folder": True,
            }
        nowhere = str(tmp_path / "no.parquet")
        with threaded(train_folder(tmp_path, nowhere), nowhere):
            found = runner.facts(folder=str(tmp_path / "none"))
            assert (found["data"], found["gate_folder"]) == (False, False)


def test_a_runner_tells_its_people_before_any_plan_that_nobody_can_be_trained_on(tmp_path, data):
    """In its own folder alone; a region with vehicles has nothing to tell."""
    for name, said in ((REGION, False), ("EU", False), ("SG", True)):
        folder = tmp_path / name
        folder.mkdir()
        process._look(folder, process.Settings(name=name, data_path=data))
        assert (folder / LOG).exists() == said
    assert "SG: 0 of 0 training vehicles have a window" in (folder / LOG).read_text()
    other = tmp_path / "other.parquet"  # of a task with columns of its own
    pq.write_table(pa.table({"region": ["EU"], "vehicle": ["v"], "test": [False], "image": [b""]}), other)
    (tmp_path / "other").mkdir()
    process._look(tmp_path / "other", process.Settings(name="EU", data_path=str(other)))
    assert not (tmp_path / "other" / LOG).exists()


def test_whoever_starts_it_no_code_comes_from_the_environment(tmp_path, data):
    """It begins anew, as one process: a module on PYTHONPATH is found by the first beginning alone."""
    site, train = tmp_path / "site", train_folder(tmp_path, data)
    site.mkdir()
    marks = tmp_path / "marks"
    mark = f"import os, sys\nprint(os.getpid(), sys.flags.isolated, file=open({str(marks)!r}, 'a'))\n"
    (site / "sitecustomize.py").write_text(mark)
    (site / "pyarrow.py").write_text("raise SystemExit('another pyarrow')\n")
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "fedfsd.runner", "--train", str(train), "--facts"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "LD_PRELOAD": ""},
    )
    assert json.loads(done.stdout)["data"], done.stderr
    assert len(marks.read_text().splitlines()) == 1


def test_the_gate_puts_the_runners_program_on_record_and_takes_no_other(tmp_path, data):
    """Until somebody accepts it: then the plan goes on where it was."""
    plan, changed = rehearsal(), programs.installed().model_copy(update={"code": "0" * 64})
    gate = gate_of(tmp_path / "gate", plan)
    with listening(gate, tmp_path, wait_seconds=30) as runner:
        with threaded(train_folder(tmp_path, data), data):
            runner.round(plan, 1, ARRAYS)
            assert runner.program == programs.installed() == gate.ledger.state.runs[plan.hash].program
        with threaded(train_folder(tmp_path, data), data, program=changed):
            with pytest.raises(RefusedError, match="region approve"):
                runner.round(plan, 2, ARRAYS)
            gate.ledger.accept_program(plan.hash, changed)
            runner.round(plan, 2, ARRAYS)
        assert gate.ledger.state.runs[plan.hash].program == changed
    mirror = (tmp_path / "gate" / "mirror.jsonl").read_text().splitlines()
    wanted = ("program", "reserve", "release", "refuse")
    kinds = [one["type"] for one in map(json.loads, mirror) if one["type"] in wanted]
    assert kinds == ["program", "reserve", "release", "refuse", "program", "reserve", "release"]


@pytest.mark.slow
def test_the_program_as_it_is_started_for_real(tmp_path, data):
    """In a folder whose socket has a long path; with the facts of its process, the vehicles among them."""
    home = tmp_path / ("long" * 25)
    home.mkdir()
    plan = rehearsal()
    gate, train = gate_of(home / "gate", plan), train_folder(home, data, test_only=False)
    program = [sys.executable, "-m", "fedfsd.runner", "--train", str(train)]
    child = subprocess.Popen([*program, "--test-only"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = subprocess.run([*program, "--facts"], capture_output=True, text=True, check=True)
        with listening(gate, home, wait_seconds=60) as runner:
            assert runner.round(plan, 1, ARRAYS).entry > 0
            child.terminate()
            assert child.communicate(timeout=20)[0] == b""
            assert child.returncode == 0
    finally:
        child.kill()
    assert json.loads(said.stdout) | {"tcp": None} == {
        "region": REGION,
        "data": True,
        "device": "cpu",
        "tcp": None,
        "gate_folder": False,
        "vehicles": len(
            window.cut(table.in_region(table.read(data), REGION), WindowSpec(), test=False).vehicles
        ),
    }
