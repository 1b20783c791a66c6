"""The benchmark measures what it says; how fast this machine is, is not tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from experiments.benchmark import (
    accelerator,
    crowd,
    figure,
    fleet,
    imports,
    recordings,
    step,
    tls,
    turn,
    ways,
    windows,
    wire,
)
from experiments.benchmark.__main__ import main
from experiments.benchmark.row import Row, place
from fedfsd.drive.check import check
from fedfsd.drive.reader import import_drives
from fedfsd.task.forecasting import window
from fedfsd.task.forecasting.window import WindowSpec


@pytest.mark.parametrize(
    ("relation", "measured", "passed"),
    [
        ("<=", 2.0, True),
        ("<", 2.0, False),
        (">=", 2.0, True),
        (">", 2.0, False),
        ("<=", 2.1, False),
        (">", 2.1, True),
        ("<=", float("nan"), False),
        (">=", float("nan"), False),
    ],
)
def test_a_row_passes_as_its_target_says(relation, measured, passed):
    row = Row("one", measured, 2, "s", relation)
    assert row.passed == passed
    assert row.target == f"{relation} 2 s"
    assert set(row.document()) == {"name", "measured", "target", "pass"}
    json.dumps(row.document(), allow_nan=False)


def test_numbers_come_with_versions_and_processor():
    assert {"python", "torch", "flwr", "opacus", "dp-accounting", "cpu"} <= set(place())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_every_way_of_a_private_step_is_the_same_step(model, monkeypatch):
    """With hardly any noise: what the benchmark compares must be worth comparing."""
    monkeypatch.setattr(ways, "NOISE", 1e-6)
    steps = ways.Steps(ways.Case(model, vehicles=5, windows=3))
    moved = {}
    for name in ("private", "hooks", "vmap"):
        found = steps.way(name)()
        parts = [-part for part in found.values()] if name == "private" else [part.numpy() for part in found]
        moved[name] = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
        moved[name] /= np.linalg.norm(moved[name])  # learning rates differ
    for name in ("hooks", "vmap"):
        assert np.linalg.norm(moved[name] - moved["private"]) < 1e-3


def test_a_case_is_timed_in_turns_against_the_plain_step():
    found = step._times(ways.Case("mlp", vehicles=3, windows=2), 4)
    assert set(found["ratios"]) == {*step.WAYS, "noise"}
    assert {len(ratios) for ratios in found["ratios"].values()} == {4} == {len(found["plain"])}
    assert found["ratios"]["plain"] == [1.0] * 4


def test_what_runs_on_an_accelerator_has_no_row_that_fails(capsys, monkeypatch):
    rows = ("clipped sum, mlp, float32", "noise, 252,219 values", "step, mlp, 4 vehicles of 2, float32")
    only = [word for row in rows for word in ("--only", row)]
    monkeypatch.setattr(sys, "argv", ["accelerator.sh", "--device", "cpu", "--quick", *only])
    accelerator.main()
    found = {row.pop("name"): row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert tuple(found) == rows
    assert not [row for row in found.values() if row.keys() & {"error", "errors", "left out"}]
    assert found[rows[0]]["farthest that one vehicle moves the sum, over C"] <= 1
    assert found[rows[1]]["noise of a step, ns a value"] > 0
    assert found[rows[2]]["ratios"].keys() == {"private", "hooks", "vmap", "noise"}


def test_the_crowd_is_of_equal_regions():
    table = crowd.drives(7, 50)
    vehicles, regions = table.text("vehicle"), table.text("region")
    for region in table.regions:
        assert len(np.unique(vehicles[regions == region])) == 50
    assert len(table.regions) == 7
    assert len(np.unique(crowd.drives(100, 50).text("vehicle"))) == 5000


def test_memory_is_that_of_the_whole_tree():
    # A child of a child with 64 MB of its own, written to so that the pages exist.
    inner = "import time; block = bytearray(b'x' * 2**26); print('ready', flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        family = crowd.tree(process.pid)
        assert len(family) == 2
        assert os.getpid() not in family
        assert sum(map(crowd._proportional, family)) > 2**26
        for one in family - {process.pid}:
            os.kill(one, 9)
    assert crowd._proportional(process.pid) == 0


def test_the_promises_on_recordings_come_from_the_published_results(tmp_path):
    rows = {row.name: row for row in recordings.recordings(None, tmp_path, quick=False)}
    assert set(rows) == {
        *(f"recordings_{region}_gain" for region in ("CN", "EU", "SG", "US")),
        "recordings_gain_over_start",
    }
    assert rows["recordings_CN_gain"].limit == 8


def test_what_imports_are_timed_on_is_read_to_its_last_row(tmp_path):
    facts = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "synthetic"}
    written = {
        "columns": (imports._table(tmp_path / "a.csv", 20_000), 20_000),
        "nuplan": (imports._log(tmp_path / "a.db", 5_000), 5_000 + 100),  # the recording car's rows too
        "nuscenes": (imports._tables(tmp_path / "v1.0-made", 2_000), 2_000 + 80),
    }
    for format, (path, rows) in written.items():
        mapping = imports.MAPPING if format == "columns" else None
        made = import_drives(path, format=format, mapping=mapping, **facts)
        assert made.rows.num_rows == rows
        assert made.left_out == ()


def test_rounds_wait_for_their_turn(tmp_path):
    file = tmp_path / "turns"
    here = turn.Turn(file)
    rounds = threading.Thread(target=lambda: [here.arrive() for _ in range(3)])
    rounds.start()
    for done in (1, 2, 3):
        while len(turn.arrivals(file)) < done:
            assert rounds.is_alive()
        assert len(turn.arrivals(file)) == done  # the next one waits
        turn.lend(file)
    rounds.join(60)
    assert not rounds.is_alive()
    assert all(seconds > 0 for seconds in turn.arrivals(file))


def test_bytes_go_there_and_back_over_tls(tmp_path):
    assert tls.seconds(tmp_path / "tls", 3 * 2**20 + 1) > 0


@pytest.mark.slow
def test_a_part_prints_rows_with_their_four_fields(capsys):
    before = os.sched_getaffinity(0)
    try:
        main(["--only", "help", "--only", "overhead", "--quick", "--json"])
    finally:
        os.sched_setaffinity(0, before)
    document = json.loads(capsys.readouterr().out)
    assert document["quick"] is True
    assert {row["name"] for row in document["rows"]} == {
        "help_seconds",
        "short_round_outside_to_training",
        "long_round_outside_share",
    }
    for row in document["rows"]:
        assert {"name", "measured", "target", "pass"} <= set(row)
        assert row["measured"] > 0


def test_the_picture_shows_ratios_and_nothing_else():
    rows = [
        Row("kept", 0.5, 1, "times", "<=").document(),
        Row("missed", 3.0, 1.5, "times", "<=", "beside").document(),
        Row("not_installed", float("nan"), 1, "times", "<=").document(),
        Row("seconds", 3.0, 5, "s", "<=").document(),
    ]
    assert figure.ratios(rows) == [("kept", 0.5, 1.0), ("missed", 3.0, 1.5)]
    drawn = figure.figure({"rows": rows, "cpu": "a processor"})
    assert "missed" in drawn
    assert "seconds" not in drawn
    assert drawn == figure.figure({"rows": rows, "cpu": "a processor"})


def test_an_updates_way_is_taken_apart(tmp_path):
    rows = wire.wire(tmp_path, quick=True)
    assert all(row.measured > 0 for row in rows)
    assert "judge and hash" in rows[0].detail


def test_windows_are_counted_by_region():
    rows = windows.windows(None, quick=True)
    assert [row.passed for row in rows] == [True, True]
    assert "CN" in rows[0].detail


def test_the_peer_of_the_fleet_cuts_the_same_windows():
    tables = (fleet.made(30, seed=2),)
    found = window.cut(tables, WindowSpec(), test=False)
    assert len(found) > 300
    np.testing.assert_allclose(fleet.plain_cut(tables, WindowSpec()), found.points, atol=1e-9)


def test_nothing_is_wrong_with_the_fleet_that_is_checked():
    assert {one.name for one in check([fleet.made(200, seed=2)])} <= {"key-in-one-recording"}
