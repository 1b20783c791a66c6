"""One of a region's processes but the first: ``python -m fedfsd.runner.peer``, started by ``runner.group``.

It reads the region's data and computes what the first process hands out; it has no key and writes nothing but
its last words, to the output of the process that started it, with which it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedfsd.config.load import load
from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.ledger import program as programs
from fedfsd.runner.process import SETTINGS, Settings
from fedfsd.service import address as addresses
from fedfsd.service import launch

if TYPE_CHECKING:
    from fedfsd.gate.policy import ModelPin


@dataclass
class Reviewed:
    """What the gate's policy says of a plan's model and task, as the first process was told."""

    pins: Mapping[str, ModelPin | None] = field(default_factory=dict)

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
        RuntimeError: the first process is gone.
    """
    program = programs.installed(folder).hash  # of the files that are imported next
    from fedfsd.engine.device import resolve
    from fedfsd.engine.shared import serve
    from fedfsd.runner import group
    from fedfsd.runner.region import Region, RegionConfig

    members = settings.members()
    device = members.devices[rank - members.first]
    reviewed = Reviewed()
    config = RegionConfig(
        settings.name,
        settings.data(folder),
        str(folder),
        device,
        backbones=settings.weights(folder),
        engine=settings.engine,
    )
    region = Region(config, reviewed)
    store = group.met(*addresses.split(where))
    for number, plan, pins in group.tasks(store, after):
        reviewed.pins = pins
        own, data = region.prepared(plan)
        group.ready(store, number, rank, program)
        try:
            group.enter(store, number, rank, members.world, resolve(device))
            serve(own, data)
        except NotReadyError as error:  # another process was lost: the next round is another one
            _say(rank, error)
        finally:
            group.leave()


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
        _say(asked.rank, error)
        return error.exit_code
    except RuntimeError as error:
        _say(asked.rank, error)
        return 1
    return 0


def _say(rank: int, error: Exception) -> None:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    print(f"process {rank}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    launch.isolate("fedfsd.runner.peer")
    code = main()
    sys.stderr.flush()
    os._exit(code)
