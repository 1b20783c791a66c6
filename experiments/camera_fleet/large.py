"""``python -m experiments.camera_fleet.large``: a table of 100,000 frames trains in bounded memory.

A few hundred rendered frames stand for all, written by row groups as cars of their own. Then a region does
what it does with a plan: reads its rows, decodes, computes the frozen trunk's features and trains one round.
What is reported is the most anonymous memory of the process (mapped files are the system's to put back onto
the disk), and how fast frames are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from experiments.camera_fleet import train
from experiments.camera_fleet.fleets import first
from experiments.camera_fleet.train import Settings
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.task.camera import drives, fleet
from fedfsd.task.camera.task import Camera
from fedfsd.task.gather import gather, tables_of

_CARS = 100  # rendered; the others repeat them under other keys
_FRAMES = 5


@dataclass
class Most:
    """The most anonymous memory of this process while it runs, bytes."""

    value: int = 0
    over: bool = False

    def __enter__(self) -> Most:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self._thread.join()

    def _watch(self) -> None:
        while not self.over:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("RssAnon:"):
                    self.value = max(self.value, 1024 * int(line.split()[1]))
            time.sleep(0.05)


def write(path: Path, frames: int) -> float:
    """A table of so many training frames of one region; frames rendered a second of processor time."""
    begun = time.process_time()
    made = fleet.generate(["EU"], cars=_CARS, frames=_FRAMES, seed=1).rows
    rate = _CARS * _FRAMES / (time.process_time() - begun)
    names = [np.array(made[name].to_pylist(), object) for name in ("vehicle", "recording")]

    def parts() -> Iterator[pa.Table]:
        for copy in range(frames // (_CARS * _FRAMES)):
            vehicle, recording = ([f"{one}-{copy}" for one in names_] for names_ in names)
            columns = {name: made[name] for name in made.column_names}
            columns |= {"vehicle": pa.array(vehicle), "recording": pa.array(recording)}
            columns["test"] = pa.array([False] * made.num_rows)
            yield pa.table(columns).cast(drives.SCHEMA)

    table.write_parts(parts(), Table(pa.table({}), "CC0-1.0 (generated)", "physical", "synthetic"), path)
    return rate


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.camera_fleet.large", description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--shrink", type=int, choices=[1, 2, 4], default=1)
    parser.add_argument("--trainable", default="head")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.parquet"
        rate = write(path, given.frames)
        task = Camera({"shrink": given.shrink})
        with Most() as most:
            begun = time.monotonic()
            examples, survey = gather(task, tables_of(task, str(path), "EU"), "EU")
            read = time.monotonic() - begun
            model = task.model("conv", {}, seed=1)
            start = train.start_of(task, model, [given.trainable], _FRAMES, first(examples, 32))
            data = start.place(examples)
            train.federated(start, {"EU": data}, 4.0, Settings(1, 0.1))
        document = {
            "frames": survey.windows,
            "vehicles": survey.vehicles,
            "table_bytes": path.stat().st_size,
            "decoded_bytes": examples.inputs["image"].nbytes,
            "most_anonymous_bytes": most.value,
            "read_seconds": round(read, 1),
            "whole_seconds": round(time.monotonic() - begun, 1),
            "rendered_frames_a_second_of_one_core": round(rate),
            "processors": os.cpu_count(),
        }
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
