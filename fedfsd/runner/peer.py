"""One of a region's processes but the first: ``python -m fedfsd.runner.peer``, started by ``runner.group``.

It reads the region's data and computes what the first process hands out; it has no key, and writes nothing
but its own failures into the region's log. It ends with the process that started it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from fedfsd.config.load import load
from fedfsd.engine.device import resolve
from fedfsd.engine.shared import serve
from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.gate.policy import ModelPin
from fedfsd.ledger import program as programs
from fedfsd.runner import client, group
from fedfsd.runner.process import SETTINGS, Settings
from fedfsd.runner.region import Region, RegionConfig
from fedfsd.service import address as addresses
from fedfsd.service import launch

_MEETING_SECONDS = 600.0


class Reviewed:
    """What the gate's policy says of a plan's model and task, as the first process was told."""

    def __init__(self) -> None:
        self.pins: dict[str, ModelPin | None] = {}

    def pin(self, *_: str) -> ModelPin | None:
        """Of the plan's model."""
        return self.pins.get("model")

    def pin_task(self, _: str) -> ModelPin | None:
        """Of its task."""
        return self.pins.get("task")


def work(folder: Path, settings: Settings, rank: int, where: str, after: int | None) -> None:
    """Join round after round, until the first process is gone.

    Raises:
        FedfsdError: what keeps this process from it.
    """
    members = settings.members()
    device = members.devices[rank - members.first]
    host, port = addresses.split(where)
    group.meet_over(host)
    program = programs.installed(folder).hash
    gate = Reviewed()
    config = RegionConfig(settings.name, settings.data(folder), str(folder), device)
    region = Region(config, gate)
    store = _met(host, port)
    for number, plan, pins in group.tasks(store, after):
        gate.pins = pins
        own, data = region.prepared(plan)
        group.ready(store, number, rank, program)
        try:
            group.enter(store, number, rank, members.world, resolve(device))
            serve(own, data)
        except NotReadyError as error:  # another process was lost: the next round is another one
            client.note(folder, error)
        finally:
            group.leave()


def _met(host: str, port: int) -> dist.TCPStore:
    try:
        return dist.TCPStore(host, port, None, False, timedelta(seconds=_MEETING_SECONDS))
    except RuntimeError:
        raise NotReadyError(
            "train.toml: together.address", got=f"nobody at {host}:{port}", expected="the first process"
        ) from None


def main() -> int:
    """The exit code."""
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="python -m fedfsd.runner.peer")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--after", type=int)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        work(asked.train, load(Settings, asked.train / SETTINGS), asked.rank, asked.store, asked.after)
    except FedfsdError as error:
        client.note(asked.train, error)
        return error.exit_code
    except RuntimeError:  # the store ended with the first process
        return 0
    return 0


if __name__ == "__main__":
    launch.isolate("fedfsd.runner.peer")
    code = main()
    sys.stderr.flush()
    os._exit(code)
