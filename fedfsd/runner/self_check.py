"""What a runner's process can do, and should not be able to: for ``fedfsd region doctor``."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.drive import source, table
from fedfsd.engine.device import resolve
from fedfsd.errors import FedfsdError
from fedfsd.gate.message import RunnerFacts

_SECONDS = 3.0
_NOWHERE = ("192.0.2.1", 9)  # RFC 5737: an address that nobody has
_SWITCHED_OFF = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT}


def facts(
    name: str, data_path: str, device: str, *, host: str = "", port: int = 0, folder: str = ""
) -> RunnerFacts:
    """See ``gate.message.RunnerFacts``; ``host`` and ``port`` are tried, ``folder`` is listed."""
    return RunnerFacts(
        data=vehicles(name, data_path) is not None,
        device=_device(device),
        tcp=_reaches(host, port) if host else _has_route(),
        gate_folder=bool(folder) and _lists(Path(folder)),
    )


def vehicles(name: str, data_path: str) -> int | None:
    """How many training vehicle keys the region's tables have; None where they cannot be read.

    Computed from the data: for the region's own people, never for the gate.
    """
    try:
        tables = table.in_region(source.keys(data_path), name)
        return len({key for part in tables for key in np.unique(part.text("vehicle")[~part.test])})
    except (FedfsdError, OSError):
        return None


def _device(name: str) -> str | None:
    try:
        return str(resolve(name))
    except FedfsdError:
        return None


def _reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError as error:
        # A refusal from elsewhere came over a network; one from this machine shows none.
        return isinstance(error, ConnectionRefusedError) and _has_route()
    return True


def _has_route() -> bool:
    """Whether there is a network at all; connecting a datagram socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_NOWHERE)
    except OSError as error:
        return error.errno not in _SWITCHED_OFF
    return True


def _lists(folder: Path) -> bool:
    try:
        os.listdir(folder)
    except OSError:
        return False
    return True


def local(name: str, data_path: str, device: str, **asked: Any) -> dict[str, Any]:
    """The facts with the number of vehicles, for who runs the command by hand."""
    found = facts(name, data_path, device, **asked).model_dump(exclude={"op"})
    return {"region": name, **found, "vehicles": vehicles(name, data_path)}
