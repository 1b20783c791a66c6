"""What a runner's process can do, and should not be able to: for ``fedfsd region doctor``."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedfsd.drive import source, table
from fedfsd.engine import backbone as frozen
from fedfsd.engine.device import resolve
from fedfsd.errors import FedfsdError
from fedfsd.gate.message import RunnerFacts
from fedfsd.gate.policy import OWN_TASKS, ModelPin
from fedfsd.plan import plan as plans
from fedfsd.runner import replay
from fedfsd.task import registry
from fedfsd.task.gather import gather, tables_of

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
        keys = source.region_tables(data_path, name, table.KEYS.names, schema=table.KEYS)
        return len(table.vehicles(keys, test=False))
    except (FedfsdError, OSError):
        return None


def surveys(
    name: str, data_path: str, asked: Sequence[Mapping[str, Any]], *, backbones: str = ""
) -> list[dict[str, Any]]:
    """What the region can train on, for each of ``asked``: ``task`` (name and options), ``pin``, ``roster``;
    or whether the weights file of the hash ``backbone`` is in ``backbones``.

    Computed from the data: for the region's own people, never for the gate.

    Returns:
        For each ``said``, one line, and ``wrong``, a line for each thing that somebody should see to.
    """
    return [
        _weights(backbones, **one) if "backbone" in one else _survey(name, data_path, **one) for one in asked
    ]


def replays(name: str, device: str, asked: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The faults that a replay finds, for each of ``asked``: ``plan`` (text), ``pin`` and ``task_pin``."""
    found = []
    for one in asked:
        pin, task_pin = (one[key] and ModelPin(**one[key]) for key in ("pin", "task_pin"))
        try:
            plan = plans.read(one["plan"])
            found.append(list(replay.of_plan(plan, name, device, pin=pin, task_pin=task_pin).faults))
        except FedfsdError as error:
            found.append([str(error)])
    return found


def remarks(name: str, data_path: str) -> list[str]:
    """What is odd about a region's data for forecasting by its usual options; of other data nothing."""
    try:
        task = registry.of("forecasting", {})
        return gather(task, tables_of(task, data_path, name), name)[1].remarks(None)
    except (FedfsdError, OSError):
        return []


def _survey(
    name: str, data_path: str, *, task: Mapping[str, Any], pin: Mapping[str, Any] | None, roster: int | None
) -> dict[str, Any]:
    if pin is None and task["name"] not in OWN_TASKS:
        return {"said": "not counted: the policy does not name the task", "wrong": []}
    try:
        reviewed = None if pin is None else ModelPin(**pin)
        chosen = registry.of(task["name"], task["options"], reviewed=reviewed)
        _, found = gather(chosen, tables_of(chosen, data_path, name), name)
    except Exception as error:  # of another package's task, of whatever kind
        why = str(error) if isinstance(error, FedfsdError) else type(error).__name__
        return {"said": "not counted", "wrong": [why]}
    return {"said": found.stated(roster), "wrong": found.remarks(roster)}


def _weights(files: str, *, backbone: str) -> dict[str, Any]:
    try:
        frozen.found(files, backbone)
    except (FedfsdError, OSError) as error:
        return {"said": "not found", "wrong": [str(error)]}
    return {"said": "found", "wrong": []}


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
    """Whether anything can be sent to a network outside; an empty datagram to nobody shows a filter, too."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_NOWHERE)
            probe.send(b"")
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
