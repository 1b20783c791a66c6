"""What a run folder should not be handed on with: said in it, and gone after ``fedfsd clean``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import experiment_of

import fedfsd
from fedfsd.errors import NotReadyError
from fedfsd.gate.gate import open_ledger
from fedfsd.report.page import write_report
from fedfsd.simulation.clean import clean


def interrupted(drives_path: str, output: Path, **options) -> None:
    """A private run that ends in its second round."""

    def stop(seen) -> None:
        if seen.round == 2:
            raise KeyboardInterrupt

    asked = experiment_of(drives_path, rounds=4) | {"mode": "private"}
    with pytest.raises(KeyboardInterrupt):
        fedfsd.simulate(asked, output=output, progress=stop, **options)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_run_is_cleaned_of_its_keys_and_ends(drives_path, tmp_path, kept):
    ledgers = tmp_path / "ledgers" if kept else None
    interrupted(drives_path, tmp_path / "run", ledgers=ledgers)
    home = ledgers or tmp_path / "run" / "regions"
    keys = sorted(home.glob("*/keys/*.key"))
    assert len(keys) == 3
    for number, key in enumerate(keys):
        os.link(key, tmp_path / f"second-{number}")
    assert "run keys" in (tmp_path / "run" / "README.md").read_text()
    page = write_report(tmp_path / "run").read_text()
    assert "<code>regions/</code> has its run keys" in page
    found = clean(tmp_path / "run", ledgers)
    assert (found.keys, found.windows) == (3, False)
    assert not list(home.glob("*/keys/*"))
    assert not any(b"".join((tmp_path / f"second-{number}").read_bytes() for number in range(3)))
    for name in ("CN", "EU", "US"):
        ledger = open_ledger(home / name)
        (run,) = ledger.state.runs.values()
        (balance,) = ledger.balances()
        ledger.close()
        assert run.settled
        assert 0 < balance.spent < balance.spent + balance.left
        assert balance.held == 0
    with pytest.raises(NotReadyError):
        fedfsd.simulate(
            experiment_of(drives_path, rounds=4) | {"mode": "private"},
            output=tmp_path / "run",
            resume=True,
            ledgers=ledgers,
        )
    assert clean(tmp_path / "run", ledgers).keys == 0


@pytest.mark.slow
def test_a_complete_run_is_cleaned_of_its_recorded_windows(drives_path, tmp_path):
    run = fedfsd.simulate(experiment_of(drives_path, rounds=1), output=tmp_path / "run")
    with np.load(run.path / "examples.npz", allow_pickle=False) as shown:
        assert any(name.endswith("history") for name in shown)
    before = run.report.read_text()
    assert "test data as they were recorded" in before
    assert (run.path / "figures" / "examples.svg").exists()
    assert "as they were recorded" in (run.path / "README.md").read_text()
    found = clean(run.path)
    assert (found.keys, found.windows) == (0, True)
    assert not (run.path / "examples.npz").exists()
    assert not (run.path / "figures" / "examples.svg").exists()
    after = run.report.read_text()
    assert "What it predicts" in before
    assert "What it predicts" not in after
    assert "What it cost in privacy" in after
    assert run.metrics["complete"]


def test_a_run_that_goes_on_is_left_alone(drives_path, tmp_path):
    refused = []

    def look(seen) -> None:
        with pytest.raises(NotReadyError, match="already running") as error:
            clean(tmp_path / "run")
        refused.append(error.value)

    asked = experiment_of(drives_path, rounds=2) | {"mode": "private"}
    fedfsd.simulate(asked, output=tmp_path / "run", progress=look)
    assert len(refused) == 2
    assert clean(tmp_path / "run").windows
