"""What a table of many vehicles costs: reading it, cutting its windows, checking it, training on it.

Each against a peer in the same process: pyarrow's own reading of all columns, windows cut by numpy without a
loop (and without what makes ours equal to the bit whatever the rows hold), and plain SGD on the same windows.
The table is made up: straight and bent drives of 15 s at 10 Hz, a hundred vehicles in a recording.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.benchmark.row import Row
from fedfsd.drive import table
from fedfsd.drive.stored import stored
from fedfsd.drive.table import Table
from fedfsd.task.forecasting import window
from fedfsd.task.forecasting.window import WindowSpec

REGION, HZ, SAMPLES, TOGETHER = "EU", 10.0, 150, 100
STEPS, RATE = 100, 0.01
FULL, USUAL = 100_000, 10_000  # vehicles
SEED = 1


def fleet(folder: Path, *, full: bool, quick: bool) -> list[Row]:
    """Ratios and memory; ``full``: a hundred thousand vehicles and two million windows."""
    folder.mkdir(parents=True)
    vehicles = 200 if quick else FULL if full else USUAL
    path = folder / "fleet.parquet"
    table.write(made(vehicles, seed=SEED), path)
    rows = vehicles * SAMPLES
    read = _child("read", path, 5)
    cut = _child("cut", path, 5)
    check = _child("check", path)
    train = _child("train", path, 4 if quick else STEPS)
    size = f"{rows / 1e6:.1f} million rows"
    peer = "x numpy without a loop"
    speed, memory = rows / check["seconds"] / 1e6, check["peak"] / 1e6
    what = f"{vehicles} vehicles, {train['windows'] / 1e3:.0f}k windows, loaded in {train['load']:.1f} s"
    model = f"transformer of {train['parameters']} parameters; of the whole process"
    return [
        Row("fleet: table.read", median(read["ratios"]), 2, "x pyarrow", "<=", f"{size}; {_spread(read)}"),
        Row("fleet: window.cut", median(cut["ratios"]), 2, peer, "<=", f"{size}; {_spread(cut)}"),
        Row("fleet: data check", speed, 1, "million rows a second", ">=", size),
        Row("fleet: data check, memory", memory, 500, "MB", "<=", f"{size}; of the whole process"),
        Row("fleet: 100 steps at q = 0.01", train["ratio"], 1.3, "x plain", "<=", what),
        Row("fleet: training, memory", train["peak"] / 1e6, 2000, "MB", "<=", model),
    ]


def _spread(found: dict[str, Any]) -> str:
    low, middle, high = quantiles(found["ratios"], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def made(vehicles: int, *, seed: int) -> Table:
    """A table of the region, all vehicles for training."""
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(vehicles, dtype=np.int32), SAMPLES)
    t = np.tile(np.arange(SAMPLES, dtype=np.float32) / HZ, vehicles)
    speed, turn = draw.uniform(4, 20, vehicles), draw.uniform(-0.05, 0.05, vehicles)
    heading = draw.uniform(-3, 3, vehicles)[owner] + turn[owner] * t
    columns: dict[str, object] = {"t": t, "heading": heading}
    for name, along in (("x", np.cos(heading)), ("y", np.sin(heading))):
        velocity = speed[owner] * along
        way = np.cumsum((velocity / HZ).reshape(-1, SAMPLES), axis=1).ravel()
        columns[name] = draw.uniform(-500, 500, vehicles)[owner] + way + draw.normal(0, 0.01, len(t))
        columns[f"v{name}"] = velocity
    for name, sizes in (("length", (3.8, 5.5)), ("width", (1.7, 2.1))):
        columns[name] = draw.uniform(*sizes, vehicles)[owner]
    texts = {
        "region": (owner * 0, [REGION]),
        "source": (owner * 0, ["fleet"]),
        "recording": (owner // TOGETHER, [f"drive-{n:05d}" for n in range(-(-vehicles // TOGETHER))]),
        "vehicle": (owner, [f"fleet/{n:06d}" for n in range(vehicles)]),
        "type": (owner * 0, ["car"]),
    }
    columns |= {name: pa.DictionaryArray.from_arrays(codes, names) for name, (codes, names) in texts.items()}
    columns |= {"hz": np.full(len(t), HZ, np.float32), "test": np.zeros(len(t), bool)}
    return table.of_rows(columns, licence="CC0-1.0", identity="recording", origin="synthetic")


def plain_cut(tables: tuple[Table, ...], spec: WindowSpec) -> np.ndarray:
    """Windows (W, H + F, 2) as one would cut them with numpy and no loop, of rows that hold nothing odd."""
    (one,) = tables
    keep = ~one.test
    vehicle, recording = (one.coded(name).codes[keep] for name in ("vehicle", "recording"))
    t, x, y = (one.number(name)[keep] for name in ("t", "x", "y"))
    order = np.lexsort((t, recording, vehicle))
    vehicle, recording, t, x, y = (values[order] for values in (vehicle, recording, t, x, y))
    new = (np.diff(vehicle) != 0) | (np.diff(recording) != 0) | (np.diff(t) > spec.max_gap_seconds)
    start = np.r_[0, np.flatnonzero(new) + 1]
    size = spec.history + spec.future
    length = t[np.r_[start[1:], len(t)] - 1] - t[start]
    count = (length / spec.period_seconds + 1e-3).astype(int) + 1
    # All runs one after the other on one axis of time.
    shift = np.r_[0, np.cumsum(length[:-1] + 10.0)]
    axis = t - np.repeat(t[start] - shift, np.diff(np.r_[start, len(t)]))
    first = np.cumsum(count) - count
    grid = np.repeat(shift, count) + spec.period_seconds * (np.arange(count.sum()) - np.repeat(first, count))
    track = np.stack([np.interp(grid, axis, values) for values in (x, y)], axis=1)
    several = np.maximum(count - size + 1, 0)
    begin = np.arange(several.sum()) + np.repeat(first - (np.cumsum(several) - several), several)
    windows = track[begin[:, None] + np.arange(size)]
    travel = np.linalg.norm(windows[:, -1] - windows[:, 0], axis=1)
    steps = np.linalg.norm(np.diff(windows, axis=1), axis=2).max(axis=1)
    return windows[(travel >= spec.min_travel_m) & (steps <= spec.max_step_m)]


def _child(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark.fleet", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _ratios(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Processor time of each call over that of the peer's just before."""
    ratios = []
    for turn in range(repeats + 1):
        seconds = [_seconds(one) for one in (peer, ours)]
        if turn:  # the first ones fill caches
            ratios.append(seconds[1] / seconds[0])
    return {"ratios": ratios}


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _read(path: Path, repeats: int) -> dict[str, Any]:
    return _ratios(lambda: table.read(path), lambda: pq.read_table(path, use_threads=False), repeats)


def _cut(path: Path, repeats: int) -> dict[str, Any]:
    tables, spec = table.read(path), WindowSpec()
    if len(window.cut(tables, spec, test=False)) != len(plain_cut(tables, spec)):
        raise RuntimeError("the peer cuts other windows")
    return _ratios(lambda: window.cut(tables, spec, test=False), lambda: plain_cut(tables, spec), repeats)


def _check(path: Path) -> dict[str, Any]:
    from fedfsd.drive.check import check
    from fedfsd.service.memory import give_back

    give_back(2**16)  # as the command does
    started = time.process_time()
    check(stored(path, table.SCHEMA))
    return {"seconds": time.process_time() - started, "peak": _peak()}


def _train(path: Path, steps: int) -> dict[str, Any]:
    """Load as a region's runner does, then take turns of private and plain steps."""
    import torch

    from experiments.benchmark.audit import plan_of
    from fedfsd.engine.local import model_on, train
    from fedfsd.engine.randomness import RoundKey
    from fedfsd.engine.vehicle import place
    from fedfsd.plan.plan import ArraySchema
    from fedfsd.task import registry
    from fedfsd.task.gather import gather, tables_of

    torch.set_num_threads(1)
    started = time.process_time()
    task = registry.of("forecasting", {})
    examples, survey = gather(task, tables_of(task, str(path), REGION), REGION)
    device = torch.device("cpu")
    data = place(examples, roster=survey.vehicles, device=device)
    del examples
    load = time.process_time() - started
    options = {"width": 82, "heads": 2, "layers": 3}
    model, other = (task.model("transformer", options, seed=1) for _ in range(2))
    arrays = {name: value.detach().numpy() for name, value in model.named_parameters()}
    schema = tuple(ArraySchema(name=name, shape=value.shape) for name, value in arrays.items())
    plan = plan_of(0, rounds=2 * STEPS)
    mine = plan.regions[REGION].model_copy(
        update={"roster": survey.vehicles, "sample_rate": RATE, "windows_per_vehicle": 1}
    )
    plan = plan.model_copy(
        update={"regions": {REGION: mine}, "model": plan.model.model_copy(update={"arrays": schema})}
    )
    plan_hash = plan.hash
    gradient = model_on(model, task.loss, device)
    optimizer = torch.optim.SGD(other.parameters(), lr=1e-3, momentum=0.9)
    draw = np.random.default_rng(SEED)

    def private(round: int) -> None:
        train(gradient, data, arrays, plan, RoundKey(bytes(32), REGION, plan_hash, round, ""))

    def plain() -> None:
        slots = draw.choice(survey.vehicles, round(RATE * survey.vehicles), replace=False)
        index = torch.from_numpy(data.first[slots] + draw.integers(np.maximum(data.counts[slots], 1)))
        optimizer.zero_grad()
        output = other(*(values[index] for values in data.inputs.values()))
        task.loss(output, {name: values[index] for name, values in data.targets.items()}).mean().backward()
        optimizer.step()

    spent = np.zeros(2)
    for turn in range(steps + 1):
        seconds = _seconds(plain), _seconds(lambda turn=turn: private(turn + 1))
        if turn:
            spent += seconds
    size = sum(value.size for value in arrays.values())
    return {
        "ratio": spent[1] / spent[0],
        "load": load,
        "windows": survey.windows,
        "peak": _peak(),
        "parameters": size,
    }


def _peak() -> int:
    """Bytes that this process took at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    what, where, *number = sys.argv[1:]
    parts: dict[str, Callable[..., dict[str, Any]]] = {
        "read": _read,
        "cut": _cut,
        "check": _check,
        "train": _train,
    }
    print(json.dumps(parts[what](Path(where), *map(int, number))))
