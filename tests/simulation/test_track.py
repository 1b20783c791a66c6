"""Figures go to trackers as they come; a tracker that fails costs the run nothing."""

from __future__ import annotations

import sqlite3
from typing import ClassVar

import pytest
from test_run import experiment

import fedfsd
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.report.run_folder import Folder
from fedfsd.simulation import track

pytestmark = pytest.mark.usefixtures("undrawn")


def tracked(drives_path, **chosen):
    return experiment(drives_path, mode="private", training__num_rounds=2) | {"track": chosen}


class Kept:
    """A tracker that remembers what it is told, and fails where it is asked to."""

    made: ClassVar[list[Kept]] = []

    def __init__(self, fail_at: str = ""):
        self.fail_at, self.told = fail_at, []
        Kept.made.append(self)

    def _tell(self, what, *values):
        self.told.append((what, *values))
        if what == self.fail_at:
            raise OSError("/private/place")

    def begin(self, run, settings):
        self._tell("begin", run, settings)

    def log(self, step, figures):
        self._tell("log", step, figures)

    def end(self, figures, files):
        self._tell("end", figures, files)

    def close(self, *, complete):
        self._tell("close", complete)


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(track, "OWN", {**track.OWN, "kept": Kept, "other": Kept})
    Kept.made.clear()
    return Kept.made


def test_what_is_tracked_is_what_the_run_folder_says(drives_path, tmp_path, kept):
    run = fedfsd.simulate(tracked(drives_path, kept={}), output=tmp_path / "run")
    told = kept[-1].told
    assert [one[0] for one in told] == ["begin", "log", "log", "log", "end", "close"]
    assert told[0][1] == run.path
    assert told[0][2]["privacy.target_epsilon"] == 4.0
    lines = Folder(run.path).rounds()
    for (_, step, figures), line in zip(told[1:4], lines, strict=True):
        assert step == line["round"]
        for name, mine in line["regions"].items():
            assert figures[f"fde_m/{name}"] == pytest.approx(mine["fde_m"])
            assert (f"epsilon/{name}" in figures) == (step > 0)
    end, files = told[4][1:]
    assert end["fde_m/pooled"] == run.metrics["pooled"]["fde_m"]
    assert end["epsilon/EU"] == run.metrics["regions"]["EU"]["epsilon"]
    assert {path.name for path in files} == {"plan.json", "report.html"}
    assert all(path.exists() for path in files)
    assert told[5] == ("close", True)


@pytest.mark.parametrize("where", ["begin", "log", "end", "close"])
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(drives_path, tmp_path, kept, capsys, where):
    chosen = tracked(drives_path, kept={"fail_at": where}, other={})
    run = fedfsd.simulate(chosen, output=tmp_path / "run")
    assert run.metrics["complete"]
    failing, sound = kept[-2:]
    assert [one[0] for one in failing.told].count("close") == 1
    assert [one[0] for one in sound.told] == ["begin", "log", "log", "log", "end", "close"]
    said = capsys.readouterr().err
    assert "kept: failed (OSError); the run goes on without this tracker" in said
    assert "/private" not in said


def test_an_interrupted_run_is_told_as_such(drives_path, tmp_path, kept):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fedfsd.simulate(tracked(drives_path, kept={}), output=tmp_path / "run", progress=interrupt)
    assert kept[-1].told[-1] == ("close", False)
    fedfsd.simulate(tracked(drives_path, other={}), output=tmp_path / "run", resume=True)
    assert [one[0] for one in kept[-1].told] == ["begin", "log", "end", "close"]


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        (
            {"mlfow": {}},
            ConfigError,
            "track.mlfow: got an unknown tracker, expected kept | mlflow",
        ),
        ({"tensorboard": {"foldr": "x"}}, ConfigError, "track.tensorboard.foldr"),
        ({"wandb": {"mode": "on"}}, ConfigError, "track.wandb.mode"),
        ({"kept": {"colour": 1}}, ConfigError, "track.kept"),
    ],
)
def test_what_cannot_be_tracked_is_refused_before_anything(drives_path, tmp_path, kept, chosen, error, words):
    with pytest.raises(error) as caught:
        fedfsd.simulate(tracked(drives_path, **chosen), output=tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_library_names_the_extra(monkeypatch):
    def missing(**_):
        raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    monkeypatch.setattr(track, "OWN", {"wandb": missing})
    with pytest.raises(NotReadyError, match=r'no module wandb.*pip install -e "\.\[track-wandb\]"'):
        track.of({"wandb": {}})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the trackers' libraries
def test_the_three_libraries_keep_the_figures_without_a_network(drives_path, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    chosen = tracked(drives_path, mlflow={}, tensorboard={}, wandb={})
    run = fedfsd.simulate(chosen, output=tmp_path / "runs" / "first")
    wanted = run.metrics["regions"]["EU"]["fde_m"]

    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        rows = database.execute("SELECT value FROM metrics WHERE key = 'fde_m/EU' ORDER BY step").fetchall()
        status = database.execute("SELECT name, status FROM runs").fetchall()
    assert len(rows) == 3
    assert rows[-1][0] == pytest.approx(wanted)
    assert status == [("first", "FINISHED")]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs" / "tensorboard" / "first")).Reload()
    assert [one.step for one in events.Scalars("fde_m/EU")] == [0, 1, 2]
    assert events.Scalars("fde_m/EU")[-1].value == pytest.approx(wanted, rel=1e-6)

    assert not list((tmp_path / "here").iterdir())  # all of it beside the runs
    assert list((tmp_path / "runs" / "mlartifacts").glob("*/artifacts/report.html"))
    (offline,) = (tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"fde_m/EU" in offline.read_bytes()
