"""What regions could make of the model for themselves, in a simulation: shown beside it, and not kept."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open
from simulation.test_run import experiment

import fedfsd
from fedfsd.cli import compare as comparing
from fedfsd.cli.simulate import told
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.report.compare import compare
from fedfsd.report.words import amount


@pytest.fixture(scope="module")
def run(drives_path, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("fedfsd.report.page._figures", lambda run: {})  # pictures take longer than the training
    wanted = experiment(drives_path, mode="none", training__num_rounds=1, resident={"max_epochs": 3})
    yield fedfsd.simulate(wanted, output=tmp_path_factory.mktemp("stays") / "run")
    patch.undo()


def test_every_region_and_all_of_them_have_both_figures(run):
    figures = [*run.metrics["regions"].values(), run.metrics["pooled"]]
    assert all(one["stays_home_fde_m"] > 0 and one["alone_fde_m"] > 0 for one in figures)
    assert any(one["stays_home_fde_m"] != one["fde_m"] for one in figures)  # it is not the shared model
    weights = [sum(one["test_windows"] * one[key] for one in figures[:-1]) for key in ("stays_home_fde_m",)]
    assert weights[0] / figures[-1]["test_windows"] == pytest.approx(figures[-1]["stays_home_fde_m"])


def test_table_page_and_comparison_show_them(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fedfsd.report.compare._picture", lambda *_: "<svg/>")
    shown = amount(run.metrics["regions"]["CN"]["stays_home_fde_m"], "m", bare=True)
    row = next(line for line in told(run.path).splitlines() if line.startswith("CN"))
    assert shown in row
    assert "not private" in told(run.path).split("alone:")[1]
    page = run.report.read_text()
    assert "<th>stays home</th><th>alone</th>" in page
    assert "must not leave" in page
    found = compare([run.path], tmp_path)
    assert "small: stays home" in comparing._text(found)
    line = next(
        line for line in (tmp_path / "compare.md").read_text().splitlines() if "small: stays home" in line
    )
    assert "none promised" in line
    assert shown in line


def test_figures_by_kind_of_driving_are_in_the_metrics_and_on_the_page(run):
    found = {one["kind"]: one for one in run.metrics["pooled"]["by_kind"]}
    assert (
        sum(one["test_windows"] for kind, one in found.items() if "m/s" in kind)
        == run.metrics["pooled"]["test_windows"]
    )
    mine = [one["by_kind"] for one in run.metrics["regions"].values()]
    for kind, one in found.items():
        parts = [part for lines in mine for part in lines if part["kind"] == kind]
        assert sum(part["test_windows"] for part in parts) == one["test_windows"]
        total = sum(part["fde_m"] * part["test_windows"] for part in parts)
        assert total / one["test_windows"] == pytest.approx(one["fde_m"])
        assert f"<tr><th>{kind}</th>" in run.report.read_text()


def test_no_model_of_a_single_region_is_left(run):
    files = sorted(run.path.rglob("*.safetensors"))
    assert [path.name for path in files] == ["checkpoint.safetensors", "model.safetensors"]
    for path in files:
        with safe_open(path, "np") as file:
            assert "fedfsd.resident" not in (file.metadata() or {})


def test_without_the_table_documents_are_those_of_before(run, drives_path):
    usual = load(Experiment, experiment(drives_path))
    assert "resident" not in usual.document()
    assert usual.document().get("format") in (None, 1, 2)
    asked = json.loads((run.path / "experiment.json").read_text())
    assert asked["format"] == 4
    assert Experiment.resolved(asked).document() == asked
    assert Experiment.resolved(asked).resident.held_out == 0.2
