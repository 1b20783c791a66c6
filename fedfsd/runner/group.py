"""The processes of a region that train together: the runner is the first, and starts the others.

``train.toml`` names a device for each. The others (``python -m fedfsd.runner.peer``) are as isolated as the
runner, see no gate and no key, and end with it. For every round they come together anew over a store that the
runner keeps, so that whatever became of a process, the next round begins with all of them. What is lost in a
round fails it: it is booked, nothing is left of it, and it is trained again on the same arrays.

torchrun's agent is not used: it would own the runner's process and start it again with the others, and with
it the connection to the gate, while the gate waits for one answer.

Processes of several machines meet at ``[together] address``; their train.toml differ in ``first`` alone.
Nothing on that way is encrypted, and sums of gradients are carried before their noise: it may not leave the
region's own network.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from fedfsd.engine.device import resolve
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.shared import Shared, backend
from fedfsd.errors import NotReadyError
from fedfsd.gate.policy import ModelPin
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan
from fedfsd.service import launch

LOCAL = "127.0.0.1"
_FOR_EVER = timedelta(days=7)
_STEP_SECONDS = 600.0  # of one broadcast or sum; a process that ended is noticed at once
_JOIN_SECONDS = 900.0  # of reading the data, on the slowest machine
_POLL_SECONDS = 0.01
_OPEN, _READY, _CLOSED, _GROUP = "open", "ready", "closed", "group"


@dataclass(frozen=True)
class Members:
    """Who trains together: ``devices`` of this machine, one process each."""

    devices: tuple[str, ...]
    host: str = LOCAL
    port: int = 0
    """Where all meet; 0: any that is free, on one machine."""
    first: int = 0
    """Rank of this machine's first process."""
    processes: int = 0
    """Of all machines; 0: of this one alone."""

    @property
    def world(self) -> int:
        """All processes."""
        return self.processes or len(self.devices)

    def demand(self) -> None:
        """NotReadyError for a device that is not there, or more processes than devices."""
        found = [resolve(name) for name in self.devices]
        counts = Counter(str(device) for device in found)
        for device, count in counts.items():
            there = len(os.sched_getaffinity(0)) if device == "cpu" else 1
            if count > there:
                raise NotReadyError(
                    "train.toml: devices",
                    got=f"{count} processes on {device}",
                    expected=f"at most {there}: one a {'core' if device == 'cpu' else 'device'}",
                    hint="name as many devices as this machine has",
                )
        if len({device.type for device in found}) > 1:
            raise NotReadyError(
                "train.toml: devices",
                got=" and ".join(sorted({device.type for device in found})),
                expected="devices of one type",
            )
        if not 0 <= self.first <= self.world - len(self.devices):
            raise NotReadyError(
                "train.toml: together",
                got=f"{len(self.devices)} devices from process {self.first} on, of {self.world}",
                expected="every process on one machine: first + devices at most processes",
            )


class Group:
    """The first process, and what it knows of the others."""

    def __init__(self, folder: Path, members: Members, program: str) -> None:
        """``program``: the hash of what trains here; every process must have the same."""
        members.demand()
        self._folder, self._members, self._program = folder, members, program
        self._store: TCPStore | None = None
        self._others: dict[int, subprocess.Popen[bytes]] = {}
        self._round = 0

    @contextmanager
    def together(
        self, plan: Plan, pins: dict[str, ModelPin | None], own: VehicleGradient
    ) -> Iterator[Shared]:
        """All processes with the plan's model, for one round.

        Raises:
            NotReadyError: a process that does not come, or was lost.
        """
        device = resolve(self._members.devices[0])
        try:
            self._join(plan, pins, device)
            shared = Shared(own, device)
            yield shared
            shared.end()
        except BaseException:
            self.close()  # whoever is still in the middle of a step
            raise
        finally:
            leave()

    def close(self) -> None:
        """End the others of this machine."""
        for process in self._others.values():
            process.kill()
        for process in self._others.values():
            process.wait()
        self._others.clear()

    def _join(self, plan: Plan, pins: dict[str, ModelPin | None], device: torch.device) -> None:
        store = self._opened()
        self._round += 1
        number = self._round
        task = {
            "plan": plan.document(),
            "pins": {name: pin and pin.model_dump(mode="json") for name, pin in pins.items()},
        }
        store.set(f"{_OPEN}/{number}", json.dumps(task))
        try:
            for rank in range(1, len(self._members.devices)):
                if rank not in self._others or self._others[rank].poll() is not None:
                    self._others[rank] = self._started(rank, after=number - 1)
            for rank in range(1, self._members.world):
                self._await(store, number, rank)
            enter(store, number, 0, self._members.world, device)
        finally:
            store.set(_CLOSED, str(number))

    def _opened(self) -> TCPStore:
        if self._store is None:
            meet_over(self._members.host)
            try:
                self._store = TCPStore(
                    self._members.host, self._members.port, None, True, _FOR_EVER, wait_for_workers=False
                )
            except RuntimeError:
                raise NotReadyError(
                    "train.toml: together.address",
                    got=f"{self._members.host}:{self._members.port}, where this process cannot listen",
                    expected="an address of the first machine, and a free port",
                ) from None
            self._store.set(_CLOSED, "0")
        return self._store

    def _started(self, rank: int, *, after: int) -> subprocess.Popen[bytes]:
        assert self._store is not None
        where = f"{self._members.host}:{self._store.port}"
        return start(self._folder, rank, where, after=after)

    def _await(self, store: TCPStore, number: int, rank: int) -> None:
        """Until a process is ready for the round. NotReadyError where it ends, or has another program."""
        until, key = time.monotonic() + _JOIN_SECONDS, f"{_READY}/{number}/{rank}"
        mine = self._others.get(rank)
        while not store.check([key]):
            if (mine is not None and mine.poll() is not None) or time.monotonic() > until:
                raise NotReadyError(
                    "train.toml: devices",
                    got=f"process {rank}, which {'ended' if mine is not None else 'did not come'}",
                    expected=f"{self._members.world} processes",
                    hint="its last words are in the output of the runner of its machine",
                )
            time.sleep(_POLL_SECONDS)
        if store.get(key).decode() != self._program:
            raise NotReadyError(
                "train.toml: together",
                got=f"process {rank} with another program",
                expected="the same release and packages on every machine",
            )


def start(folder: Path, rank: int, where: str, *, after: int | None = None) -> subprocess.Popen[bytes]:
    """One of the others, which ends with this process."""
    argv = [sys.executable, "-I", "-m", "fedfsd.runner.peer", "--train", str(folder)]
    argv += ["--rank", str(rank), "--store", where]
    argv += [] if after is None else ["--after", str(after)]
    return subprocess.Popen(
        launch.command(argv, parent=os.getpid(), isolated=True),
        env=launch.harmless(os.environ),
        stdin=subprocess.DEVNULL,
    )


def met(host: str, port: int) -> TCPStore:
    """The store of the first process, which is waited for."""
    meet_over(host)
    try:
        return TCPStore(host, port, None, False, timedelta(seconds=_JOIN_SECONDS))
    except RuntimeError:
        raise NotReadyError(
            "train.toml: together.address", got=f"nobody at {host}:{port}", expected="the first process"
        ) from None


def tasks(store: TCPStore, after: int | None) -> Iterator[tuple[int, Plan, dict[str, ModelPin | None]]]:
    """What the first process asks for, round by round."""
    number = int(store.get(_CLOSED)) if after is None else after
    while True:
        number += 1
        store.wait([f"{_OPEN}/{number}"], _FOR_EVER)
        told: dict[str, Any] = json.loads(store.get(f"{_OPEN}/{number}"))
        pins = {name: pin and ModelPin(**pin) for name, pin in told["pins"].items()}
        yield number, plans.read(told["plan"]), pins


def ready(store: TCPStore, number: int, rank: int, program: str) -> None:
    """Say that this process has model and data."""
    store.set(f"{_READY}/{number}/{rank}", program)


def enter(store: TCPStore, number: int, rank: int, world: int, device: torch.device) -> None:
    """Come together for a round. NotReadyError where somebody does not."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a lost process is an error, not an abort
    try:
        dist.init_process_group(
            backend(device),
            store=PrefixStore(f"{_GROUP}/{number}", store),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=_STEP_SECONDS),
        )
    except RuntimeError:
        raise NotReadyError(
            "train.toml: devices", got="processes that do not reach each other", expected=f"{world} of them"
        ) from None


def leave() -> None:
    """The round is over, however it ended."""
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def meet_over(host: str) -> None:
    """Have sums carried by the interface that leads to ``host``, and no other."""
    name = _interface(host)
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name


def _interface(host: str) -> str:
    """Its name. NotReadyError where there is none."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((host, 9))  # sends nothing
            mine = way.getsockname()[0]
            for _, name in socket.if_nameindex():
                asked = struct.pack("256s", name.encode())
                with suppress(OSError):
                    found = fcntl.ioctl(way.fileno(), 0x8915, asked)  # SIOCGIFADDR
                    if socket.inet_ntoa(found[20:24]) == mine or name == "lo" == _loop(mine):
                        return name
    except OSError:
        pass
    raise NotReadyError(
        "train.toml: together.address",
        got=f"{host}, to which no interface leads",
        expected="a loopback interface that is up, or an address of the region's network",
        hint="see fedfsd-train@.service for what a runner of several processes may use",
    )


def _loop(address: str) -> str:
    return "lo" if address.startswith("127.") else ""
