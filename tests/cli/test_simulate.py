"""``fedfsd simulate`` and ``fedfsd plan`` as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest_plugins = ["typing_user"]

FEDFSD = Path(sys.executable).with_name("fedfsd")
FIGURES = {
    "fde_m",
    "ade_m",
    "miss_rate",
    "constant_velocity_fde_m",
    "epsilon",
    "delta",
    "vehicles",
}


@pytest.fixture
def experiment(folder, drives_path) -> Path:
    """A rehearsal of a few rounds on a small table."""
    path = folder / "small.toml"
    path.write_text(
        f"""
name = "small"
mode = "rehearsal"
data.path = "{drives_path}"
pretraining.path = "none"
privacy = {{ target_delta = 1e-3, sample_rate = 0.5, noise_multiplier = 2.0 }}
training = {{ num_rounds = 3, local_steps = 1 }}
""",
        encoding="utf-8",
    )
    return path


@pytest.mark.slow
def test_a_run_prints_one_document_and_leaves_a_report(fedfsd, folder, experiment):
    said = fedfsd("simulate", experiment, "-o", "run", "--json")
    assert said.code == 0, said.err
    found = said.document
    assert found["run"] == "run"
    assert found["seconds"] > 0
    assert set(found["regions"]) == {"CN", "EU", "US"}
    for region in found["regions"].values():
        assert region.keys() >= FIGURES
    assert found == json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (folder / "run" / "report.html").stat().st_size > 1000
    assert "round 3/3" in said.err
    again = fedfsd("simulate", experiment, "-o", "run")
    assert again.code == 4
    assert "not empty" in again.err


@pytest.mark.slow
def test_the_embedded_data_need_no_traffic_simulator(folder, experiment):
    """The extra ``generate`` is not installed: not in this process, nor in the regions' runners."""
    absent = folder / "absent"
    absent.mkdir()
    for name in ("highway_env", "gymnasium", "pygame"):
        error = f"ModuleNotFoundError('absent', name={name!r})"
        (absent / f"{name}.py").write_text(f"raise {error}\n", encoding="utf-8")
    path = os.pathsep.join([str(absent), os.environ.get("PYTHONPATH", "")])

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([FEDFSD, *words], capture_output=True, text=True, env=environment, timeout=200)

    settings = ["data.path='embedded'", "data.regions=['US']", "training.num_rounds=1"]
    settings += ["privacy.target_delta=1e-4"]
    words = [word for one in settings for word in ("--set", one)]
    said = call("simulate", str(experiment), *words, "-o", str(folder / "run"))
    assert said.returncode == 0, said.stderr
    assert (folder / "run" / "report.html").exists()
    said = call("data", "generate", "--vehicles", "3", "-o", str(folder / "new.parquet"))
    assert said.returncode == 4
    assert 'fix: pip install ".[generate]"' in said.stderr


@pytest.mark.slow
def test_a_person_gets_a_table_and_the_path_of_the_report(fedfsd, folder, experiment, undrawn):
    said = fedfsd("simulate", experiment, "--set", "training.num_rounds=1")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("region")
    assert [line.split()[0] for line in lines[1:4]] == ["CN", "EU", "US"]
    assert "no guarantee" in said.out
    assert lines[-1] == "report: runs/small/report.html"
    assert (folder / "runs" / "small" / "report.html").exists()


@pytest.mark.slow
def test_a_sweep_is_a_list_of_runs(fedfsd, folder, experiment, undrawn):
    words = ["--set", "sweep={'seed' = [1, 2]}", "--set", "training.num_rounds=1", "-o", "all", "--json"]
    said = fedfsd("simulate", experiment, *words)
    assert said.code == 0, said.err
    assert [Path(one["run"]).name for one in said.document["runs"]] == ["seed=1", "seed=2"]
    compared = fedfsd("compare", "all/seed=1", "all/seed=2", "-o", "both", "--json")
    assert compared.code == 0, compared.err
    assert len(compared.document["runs"]) == 2
    text = fedfsd("compare", "all/seed=1", "all/seed=2")
    assert text.code == 0
    assert "pooled" in text.out


def test_plan_says_what_a_run_would_cost_and_writes_nothing(fedfsd, folder, experiment):
    calibrated = experiment.read_text(encoding="utf-8").replace("noise_multiplier", "target_epsilon")
    experiment.write_text(calibrated, encoding="utf-8")
    said = fedfsd("plan", experiment, "--set", "mode=private", "--json")
    assert said.code == 0, said.err
    region = said.document["regions"]["CN"]
    assert 1.9 < region["epsilon"] <= 2
    assert region["delta"] == 1e-3
    assert region["vehicles"] > 10
    assert region["noise_multiplier"] > 0.5
    assert region["accepted"]
    assert list(folder.iterdir()) == [experiment]
    text = fedfsd("plan", experiment)
    assert text.code == 0
    assert "accepts" in text.out  # as a simulated region; a real one takes private plans only
    assert "No guarantee: a rehearsal" in text.out


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_resume_goes_on(fedfsd, folder, experiment, undrawn):
    # Every number of a rehearsal is public, so an interrupted and a whole one can be compared.
    words = ["simulate", experiment, "--set", "training.num_rounds=40", "-o"]
    # Started in the background, as by some CI, a process inherits an ignored Ctrl-C.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from fedfsd.cli.main import run; run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "cut", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    rounds = folder / "cut" / "rounds.jsonl"
    deadline = time.monotonic() + 120
    while not (rounds.exists() and len(rounds.read_text(encoding="utf-8").splitlines()) > 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "--resume" in err
    assert not (folder / "cut" / "metrics.json").exists()
    assert fedfsd(*words, "cut", "--resume").code == 0
    assert fedfsd(*words, "whole").code == 0
    cut, whole = ((folder / name / "model.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == whole
    assert "Traceback" not in err, err
