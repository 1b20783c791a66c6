"""A real SuperLink and SuperExec for a test, and a node that does as it is told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedfsd.errors import NotReadyError
from fedfsd.flower.engine import Engine
from fedfsd.flower.fleet import FleetNode, Instruction, StaleReplyError

PULL_SECONDS = 0.2
"""Between two questions for work: each costs the SuperLink milliseconds of a core."""


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RunningEngine(Engine):
    """An engine with its processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port())
        self.prepare()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one process."""
        arguments, environment = self.commands()[name]
        environment["PYTHONPATH"] = str(Path(__file__).parent)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                arguments, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """Kill -9 it and whatever it started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> RunningEngine:
        self.start("superlink")
        self.start("superexec")
        wait_for(self.ready)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.kill(name)

    def logs(self) -> str:
        """What the processes said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


class Region:
    """A thread that holds a node: identifies, and answers what ``train`` makes of an instruction."""

    def __init__(self, engine: Engine, name: str, train: Callable[[FleetNode, Instruction], None]) -> None:
        self.engine, self.name, self._train = engine, name, train
        self.node = self.connect()
        self.node_id = self.engine.register(self.node.public_key)
        self.node.activate(self.node_id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def connect(self) -> FleetNode:
        """A new holder of the region's key."""
        return FleetNode(
            self.engine.address,
            root_certificates=self.engine.root_certificates,
            key=self.engine.folder / f"{self.name}.key",
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                instruction = self.node.pull()
                if instruction is None:
                    self._stop.wait(PULL_SECONDS)
                elif instruction.kind == "query.region":
                    patiently(self.node.identify, instruction.envelope, self.name)
                else:
                    patiently(self._train, self.node, instruction)
            except NotReadyError:
                time.sleep(0.05)

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()
        self.node.close()


def patiently(call: Callable[..., None], *arguments: object) -> None:
    """Again until the SuperLink answers; what nobody waits for is dropped."""
    while True:
        try:
            return call(*arguments)
        except NotReadyError:
            time.sleep(0.05)
        except StaleReplyError:
            return None


def plus_one(node: FleetNode, instruction: Instruction) -> None:
    """Training as far as the adapter is concerned."""
    update = {"w": instruction.arrays["w"] + 1, "b": instruction.arrays["b"]}
    node.reply(instruction.envelope, update, "e" * 64, "f" * 64)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
