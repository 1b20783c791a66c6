"""``fedfsd region up``: one region's gate and runner, kept running side by side and apart from each other."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedfsd.errors import NotReadyError
from fedfsd.gate.policy import declared
from fedfsd.node import control, join
from fedfsd.node.node import Node, private
from fedfsd.service import lock
from fedfsd.service.child import Process, python
from fedfsd.service.journal import journal
from fedfsd.service.launch import account
from fedfsd.service.supervise import LOCK, STATE, Supervisor, separated

OUTPUT = "runner.out"
"""In the runner's folder: what it prints may speak of data, so no log of the gate gets it."""
WHAT = "fedfsd region up"
_FLOWER = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
# The runner's group may pass through, and see nothing. The socket, made inside, belongs to that group too.
_THROUGH = 0o710
_ASK_SECONDS = 0.2


def up(
    node: Node,
    train: Path,
    *,
    test_only: bool = False,
    gate_user: str | None = None,
    train_user: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Keep the gate and the runner of ``node`` running until SIGTERM or Ctrl-C.

    ``say`` reports each separation that this machine does not enforce, when both are ready, and what keeps
    them from the coordinator.

    Raises:
        NotReadyError: no runner's folder, no ledger, never invited, folders of other users than those named,
            or a second ``up``.
        ConfigError: the policy lacks something.
    """
    if not (train / "train.toml").exists():
        raise NotReadyError(
            str(train / "train.toml"),
            got="no such file",
            expected="the runner's folder",
            hint="fedfsd region init --train makes one; --train names it",
        )
    _demand_begun(node, test_only=test_only)
    pulse = Pulse(node)
    (gate, runner), missing = _separate(
        processes(node, train, test_only=test_only, gate_user=gate_user, train_user=train_user, pulse=pulse)
    )
    with private():
        _lay_out(node, train, gate.user, runner.user)
        with lock.hold(node.folder / LOCK, what=WHAT):
            for sentence in missing:
                say(f"not enforced: {sentence}")
            log = journal("up", node.folder, echo=True)
            name = node.settings.name
            Supervisor(
                [gate, runner],
                log=log,
                state=node.folder / STATE,
                on_ready=lambda seconds: say(f"region {name} is ready after {seconds:.1f} s"),
                on_trouble=lambda sentence: say(f"region {name}: {sentence}"),
            ).run()


def _demand_begun(node: Node, *, test_only: bool) -> None:
    """Refuse what no restart can mend; a certificate that was asked for may still come."""
    place = str(node.folder / node.settings.policy)
    declared(node.policy(), place, test_only=test_only or node.settings.border.test_only)
    node.demand_ledger()
    if not (node.folder / "tls.next").exists():
        join.peer(node).demand_pair()


def processes(
    node: Node,
    train: Path,
    *,
    test_only: bool,
    gate_user: str | None,
    train_user: str | None,
    pulse: Pulse,
) -> list[Process]:
    """The two as they should run: users of their own, and the one with the data without a network."""
    words = ["--test-only"] if test_only else []
    gate = Process(
        "gate",
        python("fedfsd.node.region_gate", "--region", str(node.folder.absolute()), *words),
        user=gate_user,
        ready=lambda: pulse.says("connection") == "open",
        trouble=lambda: pulse.says("objection"),
    )
    runner = Process(
        "runner",
        python("fedfsd.runner", "--train", str(train.absolute()), *words, isolated=True),
        env=_FLOWER | {"FLWR_HOME": str(train.absolute() / "flwr")},
        user=train_user,
        network=False,
        isolated=True,
        output=train.absolute() / OUTPUT,
        ready=lambda: bool(pulse.says("runner")),
    )
    return [gate, runner]


class Pulse:
    """The running gate's status, asked at most a few times a second."""

    def __init__(self, node: Node) -> None:
        self._node, self._asked, self._answer = node, 0.0, {}

    _answer: dict[str, Any]

    def says(self, key: str) -> Any:
        """One fact of its status; None where it does not answer."""
        now = time.monotonic()
        if now - self._asked >= _ASK_SECONDS:
            self._asked = now
            try:
                self._answer = control.ask(self._node, {"op": "status"}, seconds=1.0)
            except NotReadyError:
                self._answer = {}
        return self._answer.get(key)


def _separate(wanted: list[Process]) -> tuple[list[Process], list[str]]:
    """The processes as this machine can keep them apart, and what it cannot enforce."""
    found = [separated(process) for process in wanted]
    missing = [sentence for _, sentences in found for sentence in sentences]
    users = {process.user for process, _ in found}
    if len(users) == 1:
        missing.append(
            "gate and runner are one user, so the gate could read the data and the runner the gate's keys"
            " (as root: --gate-user and --train-user)"
        )
    return [process for process, _ in found], missing


def _lay_out(node: Node, train: Path, gate_user: str | None, train_user: str | None) -> None:
    """Make the folders that both sides start from; of two users, let the runner reach the socket."""
    for folder in (node.folder / "run", node.folder / "log"):
        folder.mkdir(exist_ok=True)
        _give(folder, node.folder.stat().st_uid, -1, 0o700)
    if gate_user is None or train_user is None or gate_user == train_user:
        return
    (gate, _), (runner, group) = account(gate_user), account(train_user)
    for folder, name, owner in ((node.folder, gate_user, gate), (train, train_user, runner)):
        if any(path.lstat().st_uid != owner for path in (folder, *folder.iterdir())):
            raise NotReadyError(
                str(folder),
                got="files of another user",
                expected=f"all of {name}",
                hint=f"chown -R {name} {folder}",
            )
    meeting = (node.folder / node.settings.border.socket).parent
    if meeting.is_relative_to(node.folder):
        _give(node.folder, gate, group, _THROUGH)
        _give(meeting, gate, group, _THROUGH | stat.S_ISGID)


def _give(folder: Path, user: int, group: int, mode: int) -> None:
    """As root: this folder to that user, and never what a link in its place points at."""
    if os.geteuid() == 0:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(file, user, group)
            os.fchmod(file, mode)
        finally:
            os.close(file)
