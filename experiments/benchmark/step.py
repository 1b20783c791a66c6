"""What a private step costs over a plain one: processor time and memory, beside other ways to the same sum.

All ways (see ``ways``) take turns in one process of one thread; each ratio is of neighbours in time. Memory
is the peak of two steps over what model, data and packages take, a process for each way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch._C._distributed_c10d import TCPStore

from experiments.benchmark.row import Row
from experiments.benchmark.ways import CPU, WAYS, Case, Steps
from fedfsd.engine.device import resolve
from fedfsd.engine.noise import HostNoise
from fedfsd.engine.randomness import Stream
from fedfsd.engine.shared import Shared, serve
from fedfsd.runner.group import LOCAL, enter, leave, meet_over


@dataclass(frozen=True)
class Promise:
    """A case; ``time``, ``memory`` and ``noise`` are the largest ratios to the plain step.

    ``pair`` is the least speed of two processes over that of one.
    """

    case: Case
    time: float
    memory: float | None = None
    noise: float | None = None
    pair: float | None = None
    repeats: int = 40


PROMISES = (
    Promise(Case("mlp", 64, 8), 1.5),
    Promise(Case("gru", 64, 8), 1.5),
    Promise(Case("transformer", 64, 8), 1.5),
    Promise(Case("transformer of 171k", 64, 1), 1.25, 1.5, pair=1.7),
    Promise(Case("transformer of 1.5M", 16, 1), 1.25, noise=0.2, repeats=9),
    Promise(Case("transformer of 1.5M", 64, 1), 1.25, repeats=9),
    Promise(Case("PilotNet", 64, 1), 1.2, 1.8, noise=0.03, pair=1.7, repeats=9),
    Promise(Case("PilotNet", 16, 8), 1.2, repeats=7),
    Promise(Case("ResNet-18", 32, 1), 1.25, noise=0.1, repeats=5),
    Promise(Case("ResNet-18", 32, 1, "head"), 1.0, repeats=5),
)


def step(*, quick: bool) -> list[Row]:
    """Ratios of time and memory to the plain step, each case in processes of its own."""
    rows = []
    for number, promise in enumerate(PROMISES[:3] if quick else PROMISES):
        name = promise.case.name
        found = _child("time", number, 3 if quick else promise.repeats)
        ratios = {way: spread(found["ratios"][way]) for way in WAYS[1:]}
        ways = "; ".join(f"{way} {text}" for way, text in ratios.items())
        detail = f"plain {median(found['plain']) * 1000:.1f} ms; {ways}"
        measured = median(found["ratios"]["private"])
        rows.append(Row(f"step: {name}", measured, promise.time, "x plain", "<=", detail))
        if promise.noise is not None:
            share = found["ratios"]["noise"]
            rows.append(Row(f"noise: {name}", median(share), promise.noise, "x plain", "<=", spread(share)))
        if promise.pair is not None:
            speed = _child("pair", number, promise.repeats)["speed"]
            row = f"two processes: {name}"
            rows.append(Row(row, median(speed), promise.pair, "x one", ">=", spread(speed)))
        if promise.memory is not None:
            peaks = {way: _child("memory", number, way)["peak"] for way in WAYS}
            detail = "; ".join(f"{way} {peak / 1e6:.0f} MB" for way, peak in peaks.items())
            measured = peaks["private"] / peaks["plain"]
            rows.append(Row(f"step, memory: {name}", measured, promise.memory, "x plain", "<=", detail))
    return rows


def spread(ratios: list[float]) -> str:
    """The middle with the quarters around it, as ``--json`` shows it of every way."""
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _child(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark.step", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _times(case: Case, repeats: int) -> dict[str, Any]:
    """Processor seconds of plain steps, and every other way's ratios to the plain step just before."""
    steps = Steps(case)
    ways = {name: steps.way(name) for name in WAYS}
    made = HostNoise(Stream(bytes(32)))
    ways["noise"] = lambda: made.whole(steps.size, 2.0**20)
    plain: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 2):
        seconds = {name: _seconds(way) for name, way in ways.items()}
        if turn < 2:  # the first ones fill caches
            continue
        plain.append(seconds["plain"])
        for name, took in seconds.items():
            ratios[name].append(took / seconds["plain"])
    return {"plain": plain, "ratios": ratios}


def _pair(number: int, repeats: int) -> dict[str, Any]:
    """Speed of two processes over that of one, in turns, by the clock."""
    case = PROMISES[number].case
    steps, store = Steps(case), TCPStore(LOCAL, 0, None, True, wait_for_workers=False)
    meet_over(LOCAL)
    words = [sys.executable, "-m", "experiments.benchmark.step", "serve", str(number), str(store.port)]
    other = subprocess.Popen(words)
    try:
        enter(store, 1, 0, 2, CPU)
        own, data = steps.engine()
        shared = Shared(own, CPU)
        one, two = steps.rounds(own, data), steps.rounds(shared, data)
        speed = []
        for turn in range(repeats + 2):
            took = []
            for way in (one, two):
                started = time.perf_counter()
                way()
                took.append(time.perf_counter() - started)
            if turn >= 2:
                speed.append(took[0] / took[1])
        shared.end()
        other.wait()
    finally:
        leave()
        other.kill()
    return {"speed": speed}


def _serve(number: int, port: int) -> None:
    """Be the other process."""
    meet_over(LOCAL)
    own, data = Steps(PROMISES[number].case).engine()
    enter(TCPStore(LOCAL, port, None, False), 1, 1, 2, CPU)
    serve(own, data)
    leave()


def _seconds(way: Callable[[], object]) -> float:
    started = time.process_time()
    way()
    return time.process_time() - started


def _peak(case: Case, name: str) -> dict[str, int]:
    """Bytes that two steps take over what is there before."""
    way = Steps(case).way(name)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark starts anew
    before = _status("VmRSS")
    way()
    way()
    return {"peak": _status("VmHWM") - before}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    what, number, last = sys.argv[1:]
    torch.set_num_threads(1)
    resolve("cpu")  # as a region's process: what is freed is kept
    chosen = PROMISES[int(number)].case
    if what == "serve":
        _serve(int(number), int(last))
    elif what == "pair":
        print(json.dumps(_pair(int(number), int(last))))
    else:
        print(json.dumps(_times(chosen, int(last)) if what == "time" else _peak(chosen, last)))
