"""What a newcomer sees: the command's help, and the demo from its start to its report."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, median

from experiments.benchmark.row import Row
from fedfsd.report.run_folder import Folder

QUICKSTART = Path(__file__).parents[1] / "quickstart.toml"
FEDFSD = str(Path(sys.executable).with_name("fedfsd"))


def help_seconds(*, quick: bool) -> list[Row]:
    """Median wall time of ``fedfsd --help``."""
    seconds = []
    for _ in range(2 if quick else 5):
        started = time.perf_counter()
        subprocess.run([FEDFSD, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return [Row("help_seconds", median(seconds), 0.5, "s", "<")]


def demo(output: Path, *, quick: bool) -> list[Row]:
    """The demo's time to its report, and how good the model is that it shows."""
    command = [FEDFSD, "simulate", str(QUICKSTART), "-o", str(output)]
    command += ["--set", "training.num_rounds=5"] if quick else []
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if not (output / "report.html").exists():
        raise FileNotFoundError(output / "report.html")
    regions = Folder(output).read("metrics.json")["regions"].values()
    gains = [100 * (1 - one["fde_m"] / one["constant_velocity_fde_m"]) for one in regions]
    return [
        Row("demo_seconds", seconds, 180, "s", "<="),
        Row("quickstart_epsilon", max(one["epsilon"] for one in regions), 8, "", "<="),
        Row("quickstart_mean_gain", mean(gains), 3, "% of constant velocity's FDE", ">="),
        Row("quickstart_worst_region", min(gains), -1, "% of constant velocity's FDE", ">="),
    ]
