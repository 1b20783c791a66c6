"""Figures in words: direction, shares, and the page and terminal of a task that is not forecasting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lights import Lights, write_lights
from test_report import _words, write_run

from fedfsd.cli.simulate import told
from fedfsd.errors import ConfigError
from fedfsd.gate.policy import OWN_TASKS
from fedfsd.report import words
from fedfsd.report.page import read_run, title, write_report
from fedfsd.simulation.trail import Progress
from fedfsd.task.task import Metric

ERROR = Metric("error_m", "error", "m")
OVERLAP = Metric("overlap", "overlap", "", lower_is_better=False)
SHARE = Metric("right", "right", "%", lower_is_better=False)
MISSED = Metric("missed", "missed", "%")


@pytest.fixture
def lights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up task is registered."""
    monkeypatch.setitem(OWN_TASKS, Lights.name, "lights:Lights")


@pytest.mark.parametrize(
    ("metric", "value", "beside", "said"),
    [
        (ERROR, 3.0, 4.0, "25.0%"),
        (ERROR, 5.0, 4.0, "-25.0%"),
        (OVERLAP, 0.6, 0.5, "20.0%"),
        (OVERLAP, -0.5, -1.0, "50.0%"),
        (SHARE, 0.82, 0.75, "7.0 points"),
        (SHARE, 0.1, 0.0, "10.0 points"),
        (MISSED, 0.5, 0.55, "5.0 points"),
        (ERROR, 1.0, 0.0, "–"),
        (ERROR, None, 1.0, "–"),
        (SHARE, 0.5, None, "–"),
    ],
)
def test_better_follows_the_metrics_direction(
    metric: Metric, value: float | None, beside: float | None, said: str
) -> None:
    assert words.gained(metric, words.gain(metric, value, beside)) == said


@pytest.mark.usefixtures("lights")
def test_the_page_speaks_of_the_task(tmp_path: Path) -> None:
    run = write_lights(tmp_path / "run")
    page = _words(write_report(run))
    assert "Four regions, one traffic lights model: 3.4 points better than the most frequent state" in page
    assert "the model reaches accuracy 55.8% (the share of lights whose state is right)" in page
    assert "2.7 points better" in page  # than the start
    assert "higher is better" in page
    assert "log loss, nats" in page
    assert "What the model makes of one <light>." in page
    for word in ("FDE", "ADE", "constant velocity", "missed", "forecast", "windows", " m ", "None", "nan"):
        assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", page), word
    learning = (run / "figures" / "learning.svg").read_text(encoding="utf-8")
    assert "the most frequent state 46.1%" in learning
    assert "FDE" not in learning


@pytest.mark.usefixtures("lights")
def test_a_lower_share_is_called_worse(tmp_path: Path) -> None:
    run = write_lights(tmp_path / "run", worse=0.2)
    assert "16.6 points worse than the most frequent state" in title(read_run(run))
    assert "better than" not in _words(write_report(run))


@pytest.mark.usefixtures("lights")
def test_the_terminal_speaks_of_the_task(tmp_path: Path) -> None:
    head, first, *_ = told(write_lights(tmp_path / "run")).splitlines()
    assert re.split(r"\s{2,}", head) == [
        "region",
        "accuracy",
        "the most frequent state",
        "better by",
        "since start",
        "epsilon",
        "vehicles",
    ]
    assert re.split(r"\s{2,}", first) == ["CN", "50.7%", "46.1%", "4.6 points", "3.8 points", "7.99", "1337"]
    head, first, *_ = told(write_run(tmp_path / "other")).splitlines()
    assert re.split(r"\s{2,}", head)[1:4] == ["FDE, m", "constant velocity", "better by"]
    assert re.split(r"\s{2,}", first)[1:4] == ["4.93", "5.39", "8.5%"]


def _progress(name: str, unit: str) -> Progress:
    return Progress(
        round=2,
        num_rounds=5,
        headline={},
        headline_name=name,
        headline_unit=unit,
        epsilon={"EU": 1.5},
        outcomes={"EU": "released", "US": "timeout"},
        seconds_left=61.0,
    )


def test_the_progress_line_names_the_headline() -> None:
    values = {"EU": 0.5, "US": 0.25}
    assert _progress("accuracy", "%").told(values) == (
        "round 2/5 | accuracy EU 50.0%, US 25.0% | epsilon 1.50 | without US timeout | 1:01 left"
    )
    assert "| FDE EU 0.50, US 0.25 m |" in _progress("FDE", "m").told(values)
    many = {f"R{number}": 4.0 for number in range(9)}
    assert "| FDE 4.00 m, mean of 9 regions |" in _progress("FDE", "m").told(many)
    assert _progress("FDE", "m").told({}).startswith("round 2/5 | epsilon")


def test_a_task_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.name.*traffic_lights"):
        read_run(write_lights(tmp_path / "run"))
