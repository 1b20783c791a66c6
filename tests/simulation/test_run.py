"""Whole runs on a small table, as a researcher starts, interrupts and resumes them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import drives
from safetensors.numpy import load_file

import fedfsd
from fedfsd.drive import table
from fedfsd.errors import BudgetError, ConfigError, DataError, NotReadyError, PlanError, RefusedError
from fedfsd.plan.plan import WITNESS


def experiment(path: str, **changes) -> dict:
    found = {
        "name": "small",
        "mode": "rehearsal",
        "data": {"path": path},
        "pretraining": {"steps": 30, "batch_size": 64},
        "model": {"witness_size": 512},
        "privacy": {"target_epsilon": 4.0, "target_delta": 1e-3, "sample_rate": 0.5},
        "training": {"num_rounds": 5, "device": "cpu"},
    }
    for key, value in changes.items():
        where, _, last = key.rpartition("__")
        (found.setdefault(where, {}) if where else found)[last] = value
    return found


@pytest.fixture
def small(drives_path):
    return lambda **changes: experiment(drives_path, **changes)


@pytest.fixture(scope="module")
def private(drives_path, tmp_path_factory):
    """A private run with its report, and what it said on its way; only read."""
    seen = []
    output = tmp_path_factory.mktemp("private") / "run"
    return fedfsd.simulate(experiment(drives_path, mode="private"), output=output, progress=seen.append), seen


@pytest.fixture(scope="module")
def rehearsed(drives_path, tmp_path_factory):
    """A rehearsal, without pictures; only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedfsd.report.page._figures", lambda run: {})
        return fedfsd.simulate(experiment(drives_path), output=tmp_path_factory.mktemp("rehearsed") / "run")


def model_of(path):
    return load_file(path / "model.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_run_leaves_model_metrics_and_report(private):
    run, seen = private
    assert [progress.round for progress in seen] == [1, 2, 3, 4, 5]
    assert set(run.metrics["regions"]) == {"CN", "EU", "US"}
    mine = run.metrics["regions"]["CN"]
    wanted = {"fde_m", "ade_m", "miss_rate", "constant_velocity_fde_m", "epsilon", "delta", "vehicles"}
    assert wanted <= set(mine)
    assert 3.9 < mine["epsilon"] <= 4.0
    assert 0 < mine["with_window"] <= mine["vehicles"]
    assert run.metrics["crossing"] is None
    assert mine["roster_counted"] is True
    assert seen[-1].epsilon["CN"] == mine["epsilon"]
    paths, scores = run.model()(torch.zeros(3, 5, 2))
    assert (paths.shape, scores.shape) == ((3, 1, 6, 2), (3, 1))
    assert WITNESS not in model_of(run.path)
    assert "<html" in run.report.read_text()
    # Private: nobody else can read a region's folder of keys, and the key is gone with the last round.
    assert not list((run.path / "regions" / "CN" / "keys").iterdir())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_two_private_runs_differ_and_two_rehearsals_do_not(small, private, rehearsed, tmp_path):
    another = fedfsd.simulate(small(mode="private"), output=tmp_path / "private")
    assert not same(model_of(private[0].path), model_of(another.path))
    another = fedfsd.simulate(small(), output=tmp_path / "rehearsed")
    assert same(model_of(rehearsed.path), model_of(another.path))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bits(small, rehearsed, tmp_path):
    def interrupt(progress):
        if progress.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fedfsd.simulate(small(), output=tmp_path / "cut", progress=interrupt)
    assert not (tmp_path / "cut" / "metrics.json").exists()
    rest = []
    run = fedfsd.simulate(small(), output=tmp_path / "cut", resume=True, progress=rest.append)
    assert [progress.round for progress in rest] == [4, 5]
    assert same(model_of(run.path), model_of(rehearsed.path))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_kill_9_in_the_middle_loses_nothing(small, rehearsed, tmp_path):
    code = "import json, sys, fedfsd; fedfsd.simulate(json.loads(sys.argv[1]), output=sys.argv[2])"
    import json

    place = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(small()), str(place)])
    deadline = time.monotonic() + 60
    while not (place / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if not (place / "metrics.json").exists():
        fedfsd.simulate(small(), output=place, resume=True)
    assert same(model_of(place), model_of(rehearsed.path))


@pytest.mark.slow
def test_resume_of_something_else_is_refused(small, rehearsed, tmp_path):
    run = rehearsed
    with pytest.raises(NotReadyError, match="a complete run"):
        fedfsd.simulate(small(), output=run.path, resume=True)
    with pytest.raises(NotReadyError, match="another experiment"):
        fedfsd.simulate(small(seed=2), output=run.path, resume=True)
    with pytest.raises(NotReadyError, match="not empty"):
        fedfsd.simulate(small(), output=run.path)
    with pytest.raises(NotReadyError):
        fedfsd.simulate(small(), output=tmp_path / "never", resume=True)


@pytest.mark.slow
def test_mode_none_promises_nothing(small, tmp_path):
    run = fedfsd.simulate(small(mode="none", training__learning_rate=0.01), output=tmp_path / "run")
    mine = run.metrics["regions"]["EU"]
    assert mine["epsilon"] is None
    assert mine["delta"] is None
    assert "not private" in run.report.read_text().lower()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"privacy__target_delta": 0.5}, PlanError, "target_delta"),
        ({"regions": {"CN": {"roster": 3}}}, ConfigError, "roster"),
        ({"regions": {"XX": {}}}, ConfigError, "XX"),
        ({"data__regions": ["XX"]}, ConfigError, "XX"),
        ({"mode": "private", "privacy__target_epsilon": 50.0}, RefusedError, "below the floor"),
        ({"mode": "private", "privacy__target_epsilon": 12.0}, RefusedError, "epsilon 12 is above the cap"),
        ({"model__name": "mlpp"}, ConfigError, "mlpp"),
        ({"model__options": {"wdith": 3}}, ConfigError, "model.options.wdith"),
        ({"data__history_seconds": 1.0}, ConfigError, "history_seconds"),
        ({"pretraining__path": "nowhere"}, DataError, "nowhere"),
        ({"training__device": "cuda:99"}, NotReadyError, "cuda:99"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(small, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        fedfsd.simulate(small(**changes), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rehearsal_on_recorded_drives_is_refused(tmp_path):
    path = tmp_path / "recorded.parquet"
    table.write(drives({"CN": 10}, origin="recorded"), path)
    with pytest.raises(ConfigError, match="rehearsal on recorded drives"):
        fedfsd.simulate(experiment(str(path)), output=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the ray extra is not installed")
def test_ray_gives_the_same_bits_in_a_rehearsal(small, tmp_path):
    local = fedfsd.simulate(small(), output=tmp_path / "local")
    ray = fedfsd.simulate(small(), output=tmp_path / "ray", engine="ray")
    assert same(model_of(local.path), model_of(ray.path))


def test_ray_that_is_missing_is_said(small, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    without = lambda name, *rest: None if name == "ray" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(NotReadyError, match="ray"):
        fedfsd.simulate(small(), output=tmp_path / "run", engine="ray")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_kept_ledgers_are_charged_until_the_grant_is_spent(small, tmp_path):
    """A simulated grant pays for one such run; the second is refused before it starts."""
    first = fedfsd.simulate(small(mode="private"), output=tmp_path / "one", ledgers=tmp_path / "books")
    mine = first.metrics["regions"]["CN"]
    assert mine["grant_simulated"]
    assert mine["epsilon"] < mine["epsilon_lifetime"] == pytest.approx(mine["epsilon_grant"])
    with pytest.raises(BudgetError):
        fedfsd.simulate(small(mode="private"), output=tmp_path / "two", ledgers=tmp_path / "books")
    assert not (tmp_path / "two").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_the_same_rehearsal_twice_on_kept_ledgers_is_the_same_run(small, tmp_path):
    fedfsd.simulate(small(), output=tmp_path / "one", ledgers=tmp_path / "books")
    with pytest.raises(BudgetError):
        fedfsd.simulate(small(), output=tmp_path / "two", ledgers=tmp_path / "books")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_leaves_evidence_that_an_auditor_accepts(small, private, tmp_path):
    from fedfsd.audit.evidence import load
    from fedfsd.audit.verify import verify

    run, _ = private
    bundles = sorted((run.path / "bundles").glob("*.zip"))
    assert [path.stem for path in bundles] == ["CN", "EU", "US"]
    report = verify(load(bundles, receipts=run.path / "receipts.json", trust=run.path / "trust.keys"))
    assert report.headline == "holds"
    none = fedfsd.simulate(small(mode="none", training__learning_rate=0.01), output=tmp_path / "none")
    assert not (none.path / "bundles").exists()


@pytest.mark.slow
def test_a_rehearsal_cannot_be_decided(rehearsed):
    from fedfsd.audit.evidence import load
    from fedfsd.audit.verify import verify

    run = rehearsed
    bundles = sorted((run.path / "bundles").glob("*.zip"))
    report = verify(load(bundles, receipts=run.path / "receipts.json", trust=run.path / "trust.keys"))
    assert report.exit_code == 11
    assert report.headline == "cannot decide: rehearsal"
    assert report.heading == "rehearsal, no guarantee"
