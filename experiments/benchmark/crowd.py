"""Memory of a federation of 100 regions with 50 vehicles each, in one process tree.

Measured from outside as the proportional set size of every process of the tree: shared pages count once.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from experiments.benchmark.demo import FEDFSD, QUICKSTART
from experiments.benchmark.row import Row
from fedfsd.drive import source, table
from fedfsd.drive.table import Table

_EVERY_SECONDS = 0.2


def crowd(output: Path, *, quick: bool) -> list[Row]:
    """Peak memory and how much it grows over the rounds."""
    regions, rounds = (6, 6) if quick else (100, 60)
    output.mkdir(parents=True)
    table.write(drives(regions, 50), output / "crowd.parquet")
    command = [FEDFSD, "simulate", str(QUICKSTART), "-o", str(output / "run")]
    for override in (f"data.path={output / 'crowd.parquet'}", f"training.num_rounds={rounds}"):
        command += ["--set", override]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        samples = _watch(process, output / "run" / "rounds.jsonl")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # The first fifth of the rounds fills caches.
    first = [size for done, size in samples if rounds / 5 <= done <= rounds * 2 / 5]
    last = [size for done, size in samples if rounds * 4 / 5 <= done < rounds]
    growth = median(last) / median(first) - 1 if first and last else float("nan")
    return [
        Row("crowd_peak_gb", max(size for _, size in samples) / 1e9, 2, "GB", "<="),
        Row("crowd_growth", 100 * growth, 5, "% over the rounds", "<="),
    ]


def drives(regions: int, vehicles: int) -> Table:
    """The embedded traffic dealt out to ``regions`` with ``vehicles`` each, again and again."""
    (traffic,) = source.tables("embedded")
    order = np.argsort(traffic.text("vehicle"), kind="stable")
    names, first, count = np.unique(traffic.text("vehicle")[order], return_index=True, return_counts=True)
    dealt = np.arange(regions * vehicles)
    rows = np.concatenate([order[first[i] : first[i] + count[i]] for i in dealt % len(names)])
    owner = np.repeat(dealt, count[dealt % len(names)])
    columns = {name: traffic.rows[name].take(rows) for name in traffic.rows.column_names if name != "test"}
    columns["region"] = pa.array([f"R{one // vehicles:03}" for one in owner])
    columns["vehicle"] = pa.array([f"{one // vehicles:03}/{one % vehicles:03}" for one in owner])
    return table.of_rows(columns, licence=traffic.licence, identity="physical", origin="synthetic")


def _watch(process: subprocess.Popen[bytes], rounds: Path) -> list[tuple[int, int]]:
    """(rounds done, bytes of the whole tree) until the process ends."""
    samples = []
    while process.poll() is None:
        done = rounds.read_bytes().count(b"\n") - 1 if rounds.exists() else -1
        samples.append((done, sum(_proportional(one) for one in tree(process.pid))))
        time.sleep(_EVERY_SECONDS)
    return samples


def tree(root: int) -> set[int]:
    """The process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has just ended
                continue
            parents[int(entry)] = int(text.rpartition(")")[2].split()[1])
    found, new = {root}, {root}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _proportional(process: int) -> int:
    """Proportional set size in bytes; nothing for a process that has just ended."""
    try:
        text = Path("/proc", str(process), "smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
