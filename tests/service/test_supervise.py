"""Supervision: processes that crash, hang, disobey or are left behind."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedfsd.errors import NotReadyError
from fedfsd.service import launch, lock
from fedfsd.service.child import FIRST_DELAY, LAST_DELAY, Child, Process
from fedfsd.service.journal import journal
from fedfsd.service.supervise import Supervisor, read, separated

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DISOBEYS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS
HAS_A_CHILD = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n" + SLEEPS


def process(name: str, code: str, **options) -> Process:
    return Process(name, [sys.executable, "-c", code], **options)


def until(condition, seconds: float = 20.0):
    """Wait for what does not tell us itself."""
    last = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < last, "it never came"
        time.sleep(0.02)
    return found


@contextmanager
def running(tmp_path, *processes, **options):
    """A supervisor in a thread of its own."""
    made = Supervisor(processes, log=journal("up", tmp_path), state=tmp_path / "up.json", **options)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()


def events(tmp_path, word: str) -> list[dict]:
    path = tmp_path / "log" / "up.jsonl"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.exists() else [])
    return [line for line in lines if line["event"] == word]


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def row(tmp_path, number: int = 0) -> dict:
    return (read(tmp_path / "up.json") or {"processes": [{"pid": None}] * 2})["processes"][number]


def test_a_crashing_process_comes_again_and_again_and_later_each_time(tmp_path):
    with running(tmp_path, process("gate", "print('no key'); raise SystemExit(4)"), process("other", SLEEPS)):
        until(lambda: len(events(tmp_path, "ended")) >= 3)
        found = row(tmp_path)
        assert found["restarts"] >= 2
        assert (found["exit_code"], found["said"]) == (4, "no key")
        assert row(tmp_path, 1)["restarts"] == 0
    first, second, third = (line["seconds"] for line in events(tmp_path, "ended")[:3])
    assert first < second < third
    assert {line["unit"] for line in events(tmp_path, "said") if line["line"] == "no key"} == {"gate"}


def test_the_delay_doubles_up_to_its_end_and_begins_anew_after_a_good_life(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fedfsd.service.child.time.monotonic", lambda: now[0])
    child = Child(process("gate", ""))
    delays = []
    for _ in range(12):
        child.bury()
        delays.append(child.due)
    assert delays[0] == FIRST_DELAY
    assert delays[1] == 2 * FIRST_DELAY
    assert delays[-1] == LAST_DELAY
    now[0] = 61.0
    child.bury()
    assert child.due - 61.0 == pytest.approx(FIRST_DELAY)


def test_ready_when_all_are(tmp_path):
    asked, told = [], []

    def slowly() -> bool:
        asked.append(1)
        return len(asked) > 2

    with running(
        tmp_path, process("a", SLEEPS, ready=slowly), process("b", SLEEPS), on_ready=told.append
    ) as made:
        until(lambda: row(tmp_path)["pid"] and row(tmp_path)["ready"])
        assert len(asked) == 3
        assert len(told) == 1
        made.stop()
    assert len(events(tmp_path, "ready")) == 1
    assert row(tmp_path)["pid"] is None


def test_who_ignores_sigterm_is_killed_and_so_is_what_it_started(tmp_path):
    with running(tmp_path, process("gate", DISOBEYS), process("engine", HAS_A_CHILD), grace=0.3):
        until(lambda: len(events(tmp_path, "said")) == 3)
        mine = [row(tmp_path)["pid"], row(tmp_path, 1)["pid"]]
        mine += [int(line["line"]) for line in events(tmp_path, "said") if line["line"].isdigit()]
        assert all(map(alive, mine))
    assert not any(map(alive, mine))
    assert [line["unit"] for line in events(tmp_path, "killed")] == ["gate"]
    assert not events(tmp_path, "ended")


SUPERVISES = """
import sys
from pathlib import Path
from fedfsd.service.child import Process
from fedfsd.service.journal import journal
from fedfsd.service.supervise import Supervisor
folder = Path(sys.argv[1])
process = Process("gate", [sys.executable, "-c", sys.argv[2]])
Supervisor([process], log=journal("up", folder), state=folder / "up.json").run()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_orphan_however_the_supervisor_ends(tmp_path, number):
    # SIGINT is ignored in a background process of a shell; a supervisor takes it nevertheless.
    command = [
        sys.executable,
        "-c",
        SUPERVISES,
        str(tmp_path),
        DISOBEYS if number == signal.SIGKILL else SLEEPS,
    ]
    with subprocess.Popen(command) as supervisor:
        until(lambda: events(tmp_path, "said"))
        pid = row(tmp_path)["pid"]
        assert alive(pid)
        supervisor.send_signal(number)
        assert supervisor.wait(20) == (-9 if number == signal.SIGKILL else 0)
    until(lambda: not alive(pid))


def test_a_process_is_killed_from_outside_and_replaced(tmp_path):
    with running(tmp_path, process("gate", HAS_A_CHILD)):
        until(lambda: len(events(tmp_path, "said")) == 2)
        before, child = row(tmp_path)["pid"], int(events(tmp_path, "said")[0]["line"])
        os.kill(before, signal.SIGKILL)
        after = until(lambda: row(tmp_path)["pid"] not in (before, None) and row(tmp_path)["pid"])
        assert alive(after)
        assert not alive(child)
    assert events(tmp_path, "ended")[0]["code"] == -9


def test_lines_that_the_log_must_not_hold_go_to_a_file(tmp_path):
    output = tmp_path / "runner.out"
    with running(tmp_path, process("runner", "print('canary'); " + SLEEPS, output=output)):
        until(lambda: output.exists() and "up" in output.read_text(encoding="utf-8"))
    assert "canary" in output.read_text(encoding="utf-8")
    assert output.stat().st_mode & 0o077 == 0
    assert "canary" not in (tmp_path / "log" / "up.jsonl").read_text(encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    found = subprocess.run(launch.command(["true"], output=link), capture_output=True)
    assert found.returncode == launch.REFUSED
    assert not (tmp_path / "elsewhere").exists()


TOLD = (
    "import json, os, sys; print(json.dumps([sys.flags.isolated, dict(os.environ)]), flush=True)\n" + SLEEPS
)


def test_nothing_in_the_environment_gets_into_an_isolated_process(tmp_path, monkeypatch):
    """Neither into the process nor into what starts it; of the rest it sees all."""
    site, marks = tmp_path / "site", tmp_path / "marks"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"open({str(marks)!r}, 'a').write('here')\n")
    words = {"PYTHONPATH": str(site), "PYTHONSTARTUP": "x", "LD_PRELOAD": "", "LD_LIBRARY_PATH": str(site)}
    for name, value in {**words, "HARMLESS": "1"}.items():
        monkeypatch.setenv(name, value)
    child = Child(Process("runner", [sys.executable, "-I", "-c", TOLD], isolated=True))
    child.start()
    try:
        isolated, around = json.loads(until(child.lines)[0])
    finally:
        child.signal(signal.SIGKILL)
        until(child.ended)
        child.bury()
    assert isolated == 1
    assert around["HARMLESS"] == "1"
    assert not [name for name in around if name.startswith(("PYTHON", "LD_"))]
    assert not marks.exists()


def test_endless_lines_are_cut(tmp_path):
    code = "import sys; sys.stdout.write('x' * 300000 + '\\n'); " + SLEEPS
    with running(tmp_path, process("engine", code)):
        until(lambda: any(line["line"] == "up" for line in events(tmp_path, "said")))
    assert max(len(line["line"]) for line in events(tmp_path, "said")) <= 300


def run(command, **conditions) -> str:
    words = launch.command(command, **conditions)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(launch.obstacle(network=False) is not None, reason="no network namespaces here")
def test_no_network_but_the_same_user_and_unix_sockets(tmp_path):
    """Its loopback is its own: what listens on this machine's is not there."""
    code = """
import errno, os, socket
for family, address in ((socket.AF_INET, ("127.0.0.1", 1234)), (socket.AF_INET, ("192.0.2.1", 9))):
    with socket.socket(family) as one:
        one.settimeout(1)
        print(errno.errorcode[one.connect_ex(address)])
with socket.socket(socket.AF_UNIX) as one:
    print(one.connect_ex("there.sock"))
print(os.getuid())
"""
    import socket

    with socket.socket(socket.AF_UNIX) as server, socket.create_server(("127.0.0.1", 0)) as listening:
        server.bind(str(tmp_path / "there.sock"))
        server.listen()
        code = code.replace("there.sock", str(tmp_path / "there.sock"))
        code = code.replace("1234", str(listening.getsockname()[1]))
        found = run([sys.executable, "-c", code], network=False).split()
    assert found[0] in ("ECONNREFUSED", "ENETUNREACH")
    assert found[1] == "ENETUNREACH"
    assert found[2:] == ["0", str(os.getuid())]


@pytest.mark.skipif(os.getuid() != 0, reason="only root changes users")
def test_another_user_with_and_without_a_network():
    nobody = pwd.getpwnam("nobody")
    said = ["sh", "-c", "id -u; id -g; echo $USER"]  # nobody may not be allowed to run this Python
    expected = [str(nobody.pw_uid), str(nobody.pw_gid), "nobody"]
    assert run(said, user="nobody").split() == expected
    assert run(["id", "-u"], user="64101", network=True).split() == ["64101"]
    if launch.obstacle(network=False) is None:
        assert run(said, user="nobody", network=False).split() == expected


def test_what_cannot_be_enforced_is_said_and_nothing_runs_with_more_rights(monkeypatch):
    found = subprocess.run(launch.command(["echo", "ran"], user="no-such-user"), capture_output=True)
    assert (found.returncode, found.stdout) == (launch.REFUSED, b"")
    monkeypatch.setattr(launch, "obstacle", lambda **_: "not permitted")
    kept, missing = separated(process("runner", "", user="fedfsd-train", network=False))
    assert (kept.user, kept.network) == (None, True)
    assert ["fedfsd-train" in missing[0], "network" in missing[1], len(missing)] == [True, True, 2]
    assert separated(process("gate", ""))[1] == []


def test_one_a_folder(tmp_path):
    path = tmp_path / "run" / "up.lock"
    assert not lock.held(path)
    with lock.hold(path, what="region up"):
        assert lock.held(path)
        with (
            pytest.raises(NotReadyError, match="region up is already running"),
            lock.hold(path, what="region up"),
        ):
            pass
        assert lock.held(path)
    assert not lock.held(path)


def test_what_keeps_a_process_from_working_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr("fedfsd.service.supervise._TROUBLE", 0.0)
    now, asked, told = ["certificate: expired"], [], []

    def trouble() -> str | None:
        asked.append(now[0])
        return now[0]

    one = process("gate", SLEEPS, ready=lambda: False, trouble=trouble)
    with running(tmp_path, one, on_trouble=told.append):
        for sentence in ("certificate: expired", None, "clock: an hour off", "certificate: expired"):
            now[0] = sentence
            until(lambda sentence=sentence: asked[-3:] == [sentence] * 3)
    assert told == ["certificate: expired", "clock: an hour off", "certificate: expired"]
