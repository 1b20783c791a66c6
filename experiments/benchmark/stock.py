"""Stock Flower as its own commands start it: a SuperLink and SuperNodes with TLS and node authentication."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from experiments.benchmark import turn
from experiments.benchmark.crowd import tree
from experiments.federation.stage import free_ports
from fedfsd.errors import NotReadyError
from fedfsd.flower.engine import HOST, Engine

START_SECONDS, ROUND_SECONDS, END_SECONDS = 60.0, 180.0, 10.0


class Stock:
    """A SuperLink and ``nodes`` SuperNodes between ``start`` and ``close``."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        port, *self._ports = free_ports(1 + nodes)
        self._engine = Engine(folder, port)  # for its certificates and its environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self._run = 0

    def start(self) -> None:
        """Start everything. NotReadyError where it does not come up."""
        engine = self._engine
        engine.prepare()
        self._command(
            *("flower-superlink", "--host", HOST, "--port", engine.port),
            *("--ssl-ca-certfile", engine.root_certificates),
            *("--ssl-certfile", self._folder / "server.crt", "--ssl-keyfile", self._folder / "server.key"),
            *("--enable-supernode-auth", "--database", engine.database),
            "--disable-runtime-dependency-installation",
        )
        self._await("the SuperLink", engine.ready, START_SECONDS)
        for number, port in enumerate(self._ports):
            key, private = self._folder / f"node-{number}", ec.generate_private_key(ec.SECP384R1())
            key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            engine.register(public_key_to_bytes(private.public_key()))
            self._command(
                *("flower-supernode", "--superlink", engine.address, "--host", HOST, "--port", port),
                *("--root-certificates", engine.root_certificates, "--auth-supernode-private-key", key),
            )

    def run(self, name: str, size: int, rounds: int) -> Path:
        """Start a run of arrays of ``size`` floats; the file of its turns, once its first round is over."""
        file = self._folder / name
        config = {turn.KEY: str(file), "size": size, "rounds": rounds, "nodes": self._nodes}
        self._run = self._engine.submit(
            "experiments.benchmark.echo:server", config, client="experiments.benchmark.echo:client"
        )
        self._await(f"stock Flower: {name}", lambda: bool(turn.arrivals(file)), ROUND_SECONDS)
        return file

    def round(self, file: Path) -> float:
        """Seconds of one more round."""
        done = len(turn.arrivals(file))
        turn.lend(file)
        self._await(f"stock Flower: {file.name}", lambda: len(turn.arrivals(file)) > done, ROUND_SECONDS)
        return turn.arrivals(file)[-1]

    def stop(self) -> None:
        """End the run."""
        self._engine.stop(self._run)

    def close(self) -> None:
        """End everything, with all that it started."""
        family = {one for process in self._processes for one in tree(process.pid)}
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        for one in family:  # apps run in sessions of their own, and outlive a SuperLink for a while
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def _command(self, name: str, *words: object) -> None:
        """One of Flower's commands, in a session of its own."""
        _, environment = self._engine.commands()["superlink"]
        environment.pop("FLWR_SUPEREXEC_TASK_POLL_INTERVAL")  # ours; Flower's own is a second
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(Path(sys.executable).with_name(name)), *map(str, words)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _await(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline or any(one.poll() is not None for one in self._processes):
                raise NotReadyError(
                    what, got="none", expected=f"one in {seconds:g} s", hint=f"see {self._folder}/*.log"
                )
            time.sleep(0.05)
