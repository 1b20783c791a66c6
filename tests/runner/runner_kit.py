"""A region's gate and a runner of it for tests: books, policy, socket, and runners that do as they like."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from books import keep_books
from plan.sample import REGION, planned

from fedfsd.errors import FedfsdError
from fedfsd.gate import message
from fedfsd.gate.frame import Frames
from fedfsd.gate.gate import Gate
from fedfsd.gate.message import Hello, Welcome
from fedfsd.gate.policy import Policy, declared
from fedfsd.ledger import program as programs
from fedfsd.ledger.entry import Program
from fedfsd.node.runner_link import Runner
from fedfsd.plan.plan import WITNESS, Plan
from fedfsd.runner import process as runner_process
from fedfsd.runner.worker import Worker
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec


def initial() -> dict[str, np.ndarray]:
    """The shipped model's first arrays."""
    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    arrays = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    return arrays | {WITNESS: np.zeros(4096, np.float32)}


ARRAYS = initial()
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


def rehearsal(**changes: object) -> Plan:
    """A plan of three rounds whose noise is known."""
    return planned(SHAPES, mode="rehearsal", **changes)


def gate_of(folder: Path, *plans: Plan) -> Gate:
    """The gate of a region that only tests, ``plans`` approved in its books."""
    keep_books(folder, REGION, *plans)
    policy = declared(Policy(roster=30, identity="physical"), "policy", test_only=True)
    return Gate(REGION, policy, folder)


@contextmanager
def listening(gate: Gate, folder: Path, **options: float | int) -> Iterator[Runner]:
    """The gate's side of the socket ``folder``/gate.sock."""
    runner = Runner(folder / "gate.sock", gate, **options)
    runner.start()
    try:
        yield runner
    finally:
        runner.close()
        gate.ledger.close()


def train_folder(folder: Path, data: str, *, test_only: bool = True) -> Path:
    """The folder of a runner that connects to ``folder``/gate.sock."""
    made = folder / "train"
    made.mkdir(exist_ok=True)
    (made / "train.toml").write_text(
        f'name = "{REGION}"\ndata_path = "{data}"\ndevice = "cpu"\nsocket = "../gate.sock"\n'
        f"test_only = {str(test_only).lower()}\n"
    )
    return made


@contextmanager
def forked(train: Path) -> Iterator[int]:
    """A runner in a process of its own, which has what this one imported and patched; its id."""
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            status = runner_process.main(["--train", str(train)])
        os._exit(status)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextmanager
def threaded(
    train: Path, data: str, *, test_only: bool = True, program: Program | None = None, backbones: str = ""
) -> Iterator[Worker]:
    """A runner in a thread of this process, connected once."""
    program = program or programs.installed()
    worker = Worker(train, REGION, data, "cpu", test_only, backbones=backbones, program=program)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(train.parent / "gate.sock"))
        worker.greet(connection)

        def serve() -> None:
            with suppress(FedfsdError):
                while True:
                    worker.work(seconds=60)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield worker
        connection.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


@contextmanager
def faking(folder: Path, act: Callable[[Frames, socket.socket], None], **hello: object) -> Iterator[None]:
    """A runner that says hello as it should, and then does what ``act`` does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(folder / "gate.sock"))
        frames = Frames(connection)
        message.send(
            frames, Hello(version=message.VERSION, region=REGION, keys=(), program=programs.installed())
        )
        message.receive(frames, Welcome, seconds=5)

        def run() -> None:
            with suppress(FedfsdError, OSError):
                act(frames, connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)
