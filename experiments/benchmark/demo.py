"""What a newcomer sees: the command's help, and the demo from its start to its report.

The demo's time is a ratio to that of the same training without the product (``bare``), and to that of
``fedfsd --help`` for its first line, so that a busy machine does not count.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, median

import numpy as np

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
    changes = ["training.num_rounds=5"] if quick else []
    command = [FEDFSD, "simulate", str(QUICKSTART), "-o", str(output)]
    command += [word for one in changes for word in ("--set", one)]
    bare = _seconds([sys.executable, "-m", "experiments.benchmark.bare", str(QUICKSTART), *changes])
    help_ = _seconds([FEDFSD, "--help"])
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        moments = [time.perf_counter() - started for _ in process.stderr]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds, silent = time.perf_counter() - started, max(np.diff([0.0, *moments]))
    if not (output / "report.html").exists():
        raise FileNotFoundError(output / "report.html")
    regions = Folder(output).read("metrics.json")["regions"].values()
    gains = [100 * (1 - one["fde_m"] / one["constant_velocity_fde_m"]) for one in regions]
    return [
        Row(
            "demo_to_bare_training",
            seconds / bare,
            2,
            "times",
            "<=",
            f"{seconds:.1f} s, without the product {bare:.1f} s; longest silence {silent:.1f} s",
        ),
        Row("demo_first_line_to_help", moments[0] / help_, 4, "times", "<=", f"{moments[0]:.1f} s"),
        Row("quickstart_epsilon", max(one["epsilon"] for one in regions), 8, "", "<="),
        Row("quickstart_mean_gain", mean(gains), 3, "% of constant velocity's FDE", ">="),
        Row("quickstart_worst_region", min(gains), -1, "% of constant velocity's FDE", ">="),
    ]


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started
