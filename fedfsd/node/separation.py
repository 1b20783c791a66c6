"""What the region's two processes can do, asked of themselves: the running ones, or ones started for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedfsd.errors import NotReadyError
from fedfsd.node import control
from fedfsd.node.node import Node
from fedfsd.service import address as addresses
from fedfsd.service import launch, lock, patience

SECONDS = 60.0
"""In which a process that was started for an answer may be idle."""
_READ = "import sys; from pathlib import Path; from fedfsd.service.diagnosis import can_read;"
_READ += "sys.exit(0 if can_read(Path(sys.argv[1])) else 1)"


@dataclass(frozen=True)
class Separation:
    """Answers of runner and gate."""

    data: bool
    """The runner reads its tables."""
    device: str | None
    tcp: bool
    """The runner can open a network connection."""
    gate_folder: bool
    """The runner can look into the folder with the gate's keys."""
    gate_reads_data: bool | None
    """None where nobody could tell."""
    asked: str
    """Whom."""


def ask(node: Node, train: Path, address: str) -> Separation:
    """The facts; ``address`` (host:port) is what the runner should not be able to reach.

    If the processes are running, they are asked. Otherwise processes are started as by ``region up``.

    Raises:
        NotReadyError: no process could be asked, or a running one does not answer.
    """
    host, port = addresses.split(address) if address else ("", 0)
    keys = str(node.ledger.absolute())
    request = {"op": "facts", "host": host, "port": port, "folder": keys}
    data = data_path(train)
    try:
        told = control.ask(node, {**request, "data": "" if data is None else str(data)}, seconds=SECONDS)
    except NotReadyError:
        if lock.held(node.folder / "run" / "gate.pid"):  # what runs is what counts
            raise
        return _started(node, train, address, keys, data)
    known = data is not None and "gate_reads_data" in told
    return Separation(
        data=bool(told.get("data")),
        device=told.get("device"),
        tcp=bool(told.get("tcp")),
        gate_folder=bool(told.get("gate_folder")),
        gate_reads_data=bool(told["gate_reads_data"]) if known else None,
        asked="as reported by the running processes",
    )


def surveys(train: Path, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the region's data give for tasks and rosters; see ``runner.self_check.surveys``.

    The answer comes from a process of the runner's user, started for this, to whoever runs the doctor: the
    running gate, which has a network, never learns a number computed from the data.

    Raises:
        NotReadyError: this user cannot start such a process.
    """
    told: list[dict[str, Any]] | None = _told(train, ["--survey", json.dumps(asked)])
    if told is None:
        raise NotReadyError(
            "data",
            got="no answer from a process that reads them",
            expected="this user to be root or the runner's",
            hint="fedfsd region doctor as root, or fedfsd data check as the runner's user",
        )
    return told


def replays(train: Path, asked: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The faults that the runner's program shows in replays; see ``runner.self_check.replays``.

    Raises:
        NotReadyError: this user cannot start such a process.
    """
    told: list[list[str]] | None = _told(train, ["--replay"], given=json.dumps(asked).encode())
    if told is None:
        raise NotReadyError(
            "replay",
            got="no answer from a process of the runner",
            expected="this user to be root or the runner's",
            hint="fedfsd region doctor as root, or fedfsd audit replay PLAN as the runner's user",
        )
    return told


def own_model(train: Path, given: bytes) -> dict[str, Any]:
    """The card of the own model that the runner makes of ``given``; see ``runner.adapt``.

    Raises:
        NotReadyError: this user cannot start such a process, or what it says it lacks.
    """
    return _answered(
        _ended(train, ["--adapt"], given=given),
        "the region's own model",
        expected="one made by the runner",
        hint="fedfsd region adapt as root or as the runner's user; region.log in its folder may say more",
    )


def coins(train: Path, plan_hash: str) -> dict[str, Any]:
    """What the runner keeps of the coins of a plan's canaries; see ``runner.coins``.

    Raises:
        NotReadyError: this user cannot start such a process, or no round of the plan was trained here.
    """
    return _answered(
        _ended(train, ["--coins", plan_hash], given=b""),
        f"coins of plan {plan_hash[:8]}",
        expected="those in the runner's folder",
        hint="fedfsd region coins as root or as the runner's user",
    )


def _answered(
    done: subprocess.CompletedProcess[str] | None, place: str, *, expected: str, hint: str
) -> dict[str, Any]:
    """The JSON object that a process printed; NotReadyError with its last words where it did not."""
    with suppress(ValueError):
        found: dict[str, Any] = json.loads(done.stdout if done else "")
        return found
    said = done.stderr.strip().splitlines()[-1:] if done else []
    got = "".join(said) or "no answer from a process of the runner"
    raise NotReadyError(place, got=got, expected=expected, hint=hint)


def _told(train: Path, words: list[str], *, given: bytes = b"") -> Any:
    """What a process of the runner's user prints as JSON; None where it does not."""
    done = _ended(train, words, given=given)
    with suppress(ValueError):
        return json.loads(done.stdout if done else "")
    return None


def _ended(train: Path, words: list[str], *, given: bytes) -> subprocess.CompletedProcess[str] | None:
    """A process of the runner's user, without a network, at its end; None where no runner's folder is."""
    if not os.path.exists(train / "train.toml"):  # so, too, for who may not look
        return None
    cut = launch.obstacle(network=False) is None
    command = [sys.executable, "-P", "-m", "fedfsd.runner", "--train", str(train.absolute()), *words]
    return _run(launch.command(command, user=_user(train), network=not cut), given=given)


def data_path(train: Path) -> Path | None:
    """The data path in train.toml; None if this user cannot read the file or it is not a path."""
    try:
        found = tomllib.loads((train / "train.toml").read_text(encoding="utf-8"))["data_path"]
    except (OSError, ValueError, KeyError):
        return None
    path = train / str(found)
    return path.absolute() if os.sep in str(found) or path.exists() else None


def _started(node: Node, train: Path, address: str, keys: str, data: Path | None) -> Separation:
    words = ["--train", str(train.absolute()), "--facts", "--gate-folder", keys]
    words += ["--address", address] if address else []
    cut = launch.obstacle(network=False) is None
    user = _user(train)
    command = [sys.executable, "-I", "-m", "fedfsd.runner", *words]
    done = _run(launch.command(command, user=user, network=not cut))
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        refused = done.stderr.strip().splitlines()[-1:] if done.returncode == launch.REFUSED else []
        raise NotReadyError(
            "runner",
            got="no answer: no runner is running, and one started for this check "
            + "".join(refused or ["did not answer"]),
            expected="its facts",
            hint=f"run it manually: python -m fedfsd.runner --train {train} --facts",
        ) from None
    return Separation(
        data=bool(told.get("data")),
        device=told.get("device"),
        tcp=bool(told.get("tcp")),
        gate_folder=bool(told.get("gate_folder")),
        gate_reads_data=None if data is None else _reads(_user(node.folder), data),
        asked=f"not running: tested by processes started for this, {'without' if cut else 'with'} a network",
    )


def _user(folder: Path) -> str | None:
    """The owner of ``folder`` by number, where this process may become that user and is not."""
    owner = folder.stat().st_uid
    return str(owner) if os.geteuid() == 0 and owner != 0 else None


def _reads(user: str | None, data: Path) -> bool | None:
    done = _run(launch.command([sys.executable, "-P", "-c", _READ, str(data)], user=user))
    return {0: True, 1: False}.get(done.returncode)


def _run(command: list[str], *, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.TemporaryFile() as handed,
    ):
        handed.write(given)
        handed.seek(0)
        with subprocess.Popen(command, stdout=out, stderr=err, stdin=handed, text=True) as process:
            ended = patience.until(
                lambda: process.poll() is not None, seconds=SECONDS, pids=lambda: [process.pid]
            )
            if not ended:
                process.kill()
                raise NotReadyError(
                    "runner", got=f"no answer, and idle for {SECONDS:.0f} s", expected="its facts"
                )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
