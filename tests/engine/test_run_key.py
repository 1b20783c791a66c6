"""The secret run key: private to the owner, whole or absent, one a plan, gone when destroyed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from fedfsd.engine import randomness
from fedfsd.engine.randomness import destroy_run_key, known_key, run_key
from fedfsd.errors import NotReadyError

PLAN, OTHER = "a" * 64, "b" * 64


def test_a_key_is_made_once_and_kept(tmp_path):
    key = run_key(tmp_path / "keys", PLAN)
    assert len(key) == 32
    assert run_key(tmp_path / "keys", PLAN) == key


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        run_key(tmp_path, PLAN)
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_of_plans_and_regions_differ(tmp_path):
    keys = [run_key(tmp_path / folder, plan) for folder in ("CN", "EU") for plan in (PLAN, OTHER)]
    keys += [known_key(PLAN, None), known_key(OTHER, None)]
    assert len(set(keys)) == 6


def test_a_destroyed_key_does_not_come_back(tmp_path):
    key = run_key(tmp_path, PLAN)
    kept = run_key(tmp_path, OTHER)
    destroy_run_key(tmp_path, PLAN)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [kept]
    assert run_key(tmp_path, PLAN) != key
    destroy_run_key(tmp_path, "c" * 64)  # nothing there: nothing to do


def test_a_destroyed_key_is_overwritten_and_not_only_unnamed(tmp_path):
    run_key(tmp_path, PLAN)
    os.link(tmp_path / f"{PLAN}.key", tmp_path / "second name")
    (tmp_path / f"{PLAN}.keyabc").write_bytes(b"a part that a crash left")
    os.link(tmp_path / f"{PLAN}.keyabc", tmp_path / "second part")
    destroy_run_key(tmp_path, PLAN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second name", "second part"]
    assert not any(b"".join(path.read_bytes() for path in tmp_path.iterdir()))


@pytest.mark.parametrize("content", [b"", b"short", bytes(31), bytes(32), bytes(33)])
def test_a_key_of_another_length_is_refused(tmp_path, content):
    (tmp_path / f"{PLAN}.key").write_bytes(content)
    with pytest.raises(NotReadyError) as caught:
        run_key(tmp_path, PLAN)
    assert str(tmp_path) not in str(caught.value)


def test_two_processes_agree_on_one_key(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fedfsd.engine.randomness import run_key\n"
        "for n in range(150): print(run_key(Path(sys.argv[1]) / str(n), 'a' * 64).hex())"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    one, other = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert one == other
    assert len(set(one)) == 150
    assert sorted(path.name for path in (tmp_path / "7").iterdir()) == [f"{PLAN}.key"]


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("call", ["urandom", "fsync", "link"])
def test_a_crash_while_making_it_leaves_no_key(tmp_path, monkeypatch, call):
    def crash(*_):
        raise Crash

    monkeypatch.setattr(randomness.os, call, crash)
    with pytest.raises(Crash):
        run_key(tmp_path, PLAN)
    monkeypatch.undo()
    assert len(run_key(tmp_path, PLAN)) == 32


def test_a_crash_while_making_it_leaves_no_second_copy(tmp_path, monkeypatch):
    def crash(*_):
        raise Crash

    monkeypatch.setattr(randomness.os, "unlink", crash)
    with pytest.raises(Crash):
        run_key(tmp_path, PLAN)
    monkeypatch.undo()
    key = run_key(tmp_path, PLAN)
    destroy_run_key(tmp_path, PLAN)
    assert key not in [path.read_bytes() for path in tmp_path.iterdir()]


def test_a_rehearsal_key_is_known_to_everybody():
    assert known_key(PLAN, None) == known_key(PLAN, None)
    assert known_key(PLAN, "11" * 32) == bytes([0x11]) * 32
