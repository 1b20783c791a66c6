"""What the statistics of a gate remember survives a kill at any of their steps."""

from __future__ import annotations

import os
import signal

import pytest
from plan.sample import REGION, noise_alone, planned

from fedfsd.errors import UnusualNoiseError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.watch import Watcher
from fedfsd.ledger import disk

PLAN = planned(num_rounds=20)


def update(number: int):
    """Noise of which three rounds together say that there is too little, and none alone."""
    content = noise_alone(PLAN, REGION, number, scale=0.965)
    return gate_arrays.view(content, PLAN.model.arrays)


def first_alarm(folder, first: int = 1) -> int:
    """The round in which an alarm is raised."""
    for number in range(first, PLAN.num_rounds + 1):
        try:
            Watcher(folder).look(update(number), PLAN, REGION, number)
        except UnusualNoiseError:
            return number
    return 0


@pytest.mark.parametrize("step", ["fsync", "replace", "sync_folder", "after"])
def test_evidence_is_not_forgotten(tmp_path, step):
    """Each round is looked at in a process that dies; the next looks at the round again, and goes on."""
    expected = first_alarm(tmp_path / "whole")
    assert expected > 1
    killed = tmp_path / "killed"
    for number in range(1, expected):
        child = os.fork()
        if not child:
            _die_at(step)
            Watcher(killed).look(update(number), PLAN, REGION, number)
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        Watcher(killed).look(update(number), PLAN, REGION, number)
    assert first_alarm(killed, expected) == expected


def test_a_name_is_on_disk_before_the_round_may_go_on(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(disk.os, "fsync", lambda _: done.append("file or folder"))
    monkeypatch.setattr(disk.os, "replace", lambda *_: done.append("name"))
    Watcher(tmp_path).look(update(1), PLAN, REGION, 1)
    assert done == ["file or folder", "name", "file or folder"]


def _die_at(step: str) -> None:
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if step == "sync_folder":
        disk.sync_folder = die
    elif step != "after":
        setattr(disk.os, step, die)
