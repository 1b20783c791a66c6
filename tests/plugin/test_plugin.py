"""examples/plugin as its author would use it: installed without the network, every part of it run.

The package is installed into a folder of its own and its parts run in processes that find it there, so that
nothing of it is in this process and nothing of fedfsd knows it.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedfsd

SOURCE = Path(__file__).parents[2] / "examples" / "plugin"
ROOT = Path(fedfsd.__file__).parents[1]
COMMAND = "from fedfsd.cli.main import run; run()"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder that the package is installed in."""
    place = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, place / "source")  # a build writes beside its source
    where = ["--no-deps", "--no-build-isolation", "--no-index", "--target", place / "site"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *where, place / "source"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return place / "site"


@pytest.fixture
def python(site, tmp_path):
    """Runs Python with the package installed, in an empty folder; its output."""

    def run(*words: str | Path) -> str:
        path = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT), str(site)])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def cli(python):
    """The command fedfsd with the package installed."""
    return lambda *words: python("-c", COMMAND, *words)


def test_its_reader_imports_a_recording(cli, tmp_path):
    rows = [("a", "Car", t / 10, t * 1.5, 0) for t in range(100)]
    with (tmp_path / "drive.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("vehicle", "type", "t", "x", "y"), *rows])
    facts = ("--region", "EU", "--licence", "CC0-1.0", "--identity", "recording", "--origin", "synthetic")
    cli("data", "import", "drive.csv", "--format", "csv", "--hz", "10", *facts, "-o", "drives.parquet")
    from fedfsd.drive import table

    (read,) = table.read(tmp_path / "drives.parquet")
    assert set(read.text("vehicle")) == {"csv/a"}
    assert read.number("vx") == pytest.approx(15)


def test_its_model_and_its_strategy_forecast(cli, tmp_path, drives_path):
    (tmp_path / "glide.toml").write_text('name = "glide"\n[model]\nname = "glide"\n')
    changes = {
        "mode": "none",
        "data.path": drives_path,
        "data.regions": '["US"]',
        "pretraining.path": "none",
        "training.num_rounds": 1,
        "training.device": "cpu",
        "server.strategy": "Damped",
        "model.options.friction": 0.1,
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    cli("simulate", "glide.toml", *words, "-o", "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["complete"]
    assert metrics["pooled"]["fde_m"] > 0


def test_its_task_trains_privately_reports_and_verifies(cli, python, site, tmp_path):
    python("-m", "fedfsd_example.curve.drawing", "data")
    experiment = site / "fedfsd_example" / "curve.toml"
    changes = (
        "--set",
        "data.path=data/regions.parquet",
        "--set",
        "pretraining.path=data/public.parquet",
        "--set",
        "pretraining.steps=20",
        "--set",
        "training.num_rounds=5",
    )
    cli("simulate", experiment, *changes, "-o", "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found = metrics["pooled"]
    assert metrics["task"]["headline"]["key"] == "error_per_km"
    assert found["error_per_km"] < 0.8 * found["straight_road_error_per_km"]
    assert [one["epsilon"] for one in metrics["regions"].values()] == pytest.approx([8, 8], abs=0.01)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "curvature error" in page
    assert "1/km" in page
    assert "FDE" not in page

    receipts = ("--receipts", "run/receipts.json", "--trust", "run/trust.keys")
    said = cli("audit", "verify", *sorted((tmp_path / "run" / "bundles").iterdir()), *receipts)
    assert "\nverdict: holds" in said


def test_the_pins_that_are_printed_run_all_of_it(cli, python, tmp_path):
    (tmp_path / "pins.toml").write_text(cli("config", "pins"))
    pins = tomllib.loads((tmp_path / "pins.toml").read_text())
    assert [one["name"] for one in pins["tasks"]] == ["curve"]
    assert [one["name"] for one in pins["models"]] == ["glide"]
    said = python(
        "-c",
        "import tomllib; from fedfsd.gate.policy import Policy; from fedfsd.task import registry\n"
        "policy = Policy.model_validate(tomllib.load(open('pins.toml', 'rb')))\n"
        "task = registry.of('curve', {}, reviewed=policy.pin_task('curve'))\n"
        "model = task.model('rows', {}, seed=1, reviewed=policy.pin('rows', 'curve'))\n"
        "own = registry.of('forecasting', {})\n"
        "glide = own.model('glide', {}, seed=1, reviewed=policy.pin('glide', 'forecasting'))\n"
        "print(type(task.__class__.__module__), type(model).__name__, type(glide).__name__)",
    )
    assert said.split()[-2:] == ["Rows", "Glide"]
