"""Real regions over the border, in turn with stock Flower on the same two cores.

A coordinator and three regions as ``experiments.federation`` sets them up, each region with a gate of its
own. Short rounds are those of its experiment, trained by the real runners. Large ones carry 40 MB each way
for each region; there the runners train nothing and hand in prepared noise (``noise``), as stock Flower's
clients answer with random numbers (``echo``), so that what is compared is the way of an update.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from statistics import median

from experiments.benchmark import tls
from experiments.benchmark.large import COORDINATOR, Large, NoiseRegions
from experiments.benchmark.row import Row
from experiments.benchmark.stock import Stock
from experiments.federation.stage import FEDFSD, Stage

ROOT = Path(__file__).parents[2]
EXPERIMENT = ROOT / "experiments" / "federation" / "experiment.toml"
REGIONS = ("CN", "EU", "US")
FLOATS = 10_000_000
UPDATE = 4 * FLOATS
"""Bytes of a large update."""
SHORT_FLOATS, MANY_ROUNDS = 1000, 200
_RUN_SECONDS = 120.0


def border(output: Path, *, quick: bool) -> list[Row]:
    """Seconds of rounds and of starts, ratios to stock Flower and to plain TLS, memory of both gates."""
    os.environ["PYTHONPATH"] = str(ROOT)  # Flower's processes find the apps of this folder by name
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    output.mkdir(parents=True)
    few = 1 if quick else 3
    with ExitStack() as stack:
        stock = stack.enter_context(closing(Stock(output / "stock", len(REGIONS))))
        stage = Stage(output / "ours", REGIONS, separate=False, say=lambda _: None)
        stack.callback(stage.down)
        stage.build()
        starts = [_start(stage, name) for name in REGIONS]
        short = _short(stage, output / "short", rounds=5 if quick else 16)
        for name in REGIONS:
            stage.stop(name)
        stock.start()
        file = stock.run("short", SHORT_FLOATS, MANY_ROUNDS)
        short_stock = [stock.round(file) for _ in range(few)]
        stock.stop()
        regions = stack.enter_context(closing(NoiseRegions(stage, output)))
        regions.rest()
        ratios, ours, theirs, peaks = _large(stage, stock, regions, output, rounds=1 if quick else 4)
        stock.close()
        gates, plain = _alone(stage, regions, output, rounds=1 if quick else 4)
    return [
        Row("border_region_start_s", median(starts), 20, "s", "<"),
        _stated("border_short_round_s", short),
        Row("border_short_round_to_stock_flower", median(short) / median(short_stock), 0.5, "times", "<="),
        _stated("border_short_round_stock_flower_s", short_stock),
        _stated("border_40mb_round_s", ours),
        _stated("border_40mb_round_stock_flower_s", theirs),
        Row("border_40mb_round_to_stock_flower", median(ratios), 1, "times", "<="),
        _stated("border_40mb_both_gates_s", gates),
        Row("border_40mb_both_gates_to_tls_copy", median(gates) / median(plain), 10, "times", "<="),
        Row("border_40mb_region_gate_peak", max(peaks[name] for name in REGIONS), 3, "updates", "<="),
        Row("border_40mb_coordinator_gate_peak", peaks[COORDINATOR], 3, "updates", "<="),
    ]


def _large(
    stage: Stage, stock: Stock, regions: NoiseRegions, output: Path, *, rounds: int
) -> tuple[list[float], list[float], list[float], dict[str, float]]:
    """Rounds of ours and of stock Flower in turn: ratios, seconds, and the gates' peaks in updates."""
    file = stock.run("large", FLOATS, MANY_ROUNDS)
    with closing(Large(stage, output / "large", REGIONS, FLOATS, MANY_ROUNDS)) as large:
        pairs = [(large.round(), stock.round(file)) for _ in range(rounds)]
        peaks = {name: size / UPDATE for name, size in regions.peaks().items()}
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return [mine / other for mine, other in pairs], ours, theirs, peaks


def _alone(
    stage: Stage, regions: NoiseRegions, output: Path, *, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of both gates of one region alone, and of the same bytes over TLS, in turn."""
    plain = []
    with closing(Large(stage, output / "alone", REGIONS[:1], FLOATS, MANY_ROUNDS)) as large:
        for _ in range(rounds):
            large.round()
            plain.append(tls.seconds(output / "tls", UPDATE))
        return regions.gate_seconds(large.plan), plain


def _stated(name: str, seconds: list[float]) -> Row:
    """A figure without a promise, to read the others by."""
    return Row(name, median(seconds), 0, "s (stated)", ">")


def _start(stage: Stage, name: str) -> float:
    """Seconds from ``region up`` until its status says that it is ready."""
    started = time.monotonic()
    stage.start_region(name)
    stage.wait(name, lambda: stage.ready(name))
    return time.monotonic() - started


def _short(stage: Stage, output: Path, *, rounds: int) -> list[float]:
    """Seconds of each round but the first, as a run is typed: from one line of its record to the next."""
    record = output / "rounds.jsonl"
    overrides = (f"training.num_rounds={rounds}", "pretraining.steps=100", "privacy.noise_multiplier=50")
    command = [*FEDFSD, "coordinator", "run", EXPERIMENT, "-C", stage.coordinator, "-o", output]
    for one in overrides:
        command += ["--set", one]
    with (output.parent / "short.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    seen: list[float] = []
    try:
        stage.wait("the offer", lambda: stage.offered() is not None or process.poll() is not None)
        stage.approve(stage.offered() or "")
        deadline = time.monotonic() + _RUN_SECONDS
        while len(seen) < rounds + 1 and process.poll() is None and time.monotonic() < deadline:
            lines = record.read_bytes().count(b"\n") if record.exists() else 0
            seen += [time.monotonic()] * (lines - len(seen))
            time.sleep(0.002)
        process.wait(_RUN_SECONDS)
    finally:
        process.kill()
        process.wait()
    # Line 0 is the model before the first round, line 1 the first round.
    return [after - before for before, after in pairwise(seen[1:])]
