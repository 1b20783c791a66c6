"""The first study is a test of itself: its files load, its numbers hold together, its command runs."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from conftest import drives
from hypothesis import given
from hypothesis import strategies as st

from experiments.four_regions import page, result, spent
from experiments.four_regions.__main__ import HERE, main
from experiments.four_regions.drives import POOLED, as_one_region
from experiments.four_regions.result import MEAN, Row
from experiments.four_regions.rung import CONSTANT_VELOCITY, FEDERATED_8, LADDER, START
from experiments.four_regions.study import QUICKSTART, SETTINGS, _best_predictor, open_study
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.errors import NotReadyError
from fedfsd.mechanism.accountant import compose
from fedfsd.mechanism.calibration import noise_multiplier
from fedfsd.mechanism.event import Event

TINY = ["--set", "training.num_rounds=2", "--set", "pretraining.steps=5"]


def row(rung: str, region: str, seed: str, fde: float) -> Row:
    return Row(
        rung,
        region,
        seed,
        fde,
        fde - 1,
        fde + 1,
        None,
        fde / 2,
        0.5,
        8.0,
        30.0,
        1e-4,
        6.0,
        10,
        "recording",
        "",
    )


def seeds(rung: str, values: list[float]) -> list[Row]:
    found = [row(rung, region, str(n), v) for n, v in enumerate(values, 1) for region in ("CN", POOLED)]
    mean = sum(values) / len(values)
    return [*found, *(row(rung, region, MEAN, mean) for region in ("CN", POOLED))]


def test_the_quickstart_file_is_what_every_private_rung_runs():
    experiment = load(Experiment, QUICKSTART)
    assert experiment.mode == "private"
    assert experiment.privacy.target_epsilon == 8.0
    assert experiment.privacy.target_delta == 1e-4
    assert experiment.data.path == "embedded"
    assert not experiment.regions
    assert not experiment.sweep


def test_the_ladder_has_the_rungs_of_the_study():
    assert [rung.epsilon for rung in LADDER if rung.private and rung.kind == "federated"] == [8, 4, 2, 1]
    assert {rung.kind for rung in LADDER if rung.trains and not rung.private} == {
        "alone",
        "pooled",
        "federated",
    }
    assert len({rung.name for rung in LADDER}) == len(LADDER)


def test_the_learning_rates_without_noise_cover_every_such_rung():
    kinds = {rung.kind for rung in LADDER if rung.trains and not rung.private}
    assert kinds == set(SETTINGS["learning_rate_not_private"])


def test_one_region_of_all_keeps_every_vehicle_apart():
    tables = [drives({"CN": 4}), drives({"EU": 3}, seed=1)]
    rows = table.of_rows(
        {name: tables[1].rows[name] for name in tables[1].rows.column_names}
        | {"vehicle": [key.replace("EU", "CN") for key in tables[1].text("vehicle")]},
        licence="other",
        identity="recording",
        origin="recorded",
    )
    one = as_one_region([tables[0], rows])
    assert one.regions == (POOLED,)
    assert len(np.unique(one.text("vehicle"))) == 7
    assert one.rows.num_rows == tables[0].rows.num_rows + rows.rows.num_rows
    # The most careful of what the parts declare.
    assert (one.identity, one.origin) == ("recording", "recorded")


def test_the_predictor_is_chosen_on_training_vehicles(tmp_path):
    # Training vehicles jitter, for which the mean of two steps is better; test vehicles turn smoothly.
    path = tmp_path / "drives.parquet"
    whole = drives({"CN": 40})
    random = np.random.default_rng(0)
    shaken = whole.number("x") + np.where(whole.test, 0.0, random.normal(0, 1.0, whole.rows.num_rows))
    columns = {name: whole.rows[name] for name in whole.rows.column_names} | {"x": shaken}
    table.write(table.of_rows(columns, licence="CC0-1.0", identity="physical", origin="synthetic"), path)
    study = open_study(str(path), (), tmp_path)
    assert _best_predictor(study, "CN") == "1 s mean"


@pytest.mark.slow
def test_what_was_spent_is_all_runs_composed(tmp_path):
    path = tmp_path / "drives.parquet"
    table.write(drives({"CN": 30, "EU": 20}), path)
    study = open_study(str(path), (), tmp_path)
    sigma = noise_multiplier(target_epsilon=8.0, target_delta=1e-4, sample_rate=1.0, steps=120)
    event = Event(1.0, sigma, 120)
    in_both = {name: spent.Privacy(8.0, 1e-4, event) for name in ("CN", "EU")}
    only_cn = {"CN": spent.Privacy(8.0, 1e-4, event), "EU": spent.Privacy(None)}
    found = spent.spent(study, [in_both, only_cn])
    assert found["EU"].epsilon == pytest.approx(8.0, abs=0.01)
    assert found["CN"].epsilon == compose([[event]] * 2, 1e-4) > 11
    assert (found["CN"].ladder, found["CN"].search, found["CN"].before) == (2, 0, 0)
    # A search beside the results counts, and so does what study.toml knows of these rosters.
    lines = "rung,sample_rate,noise_multiplier,steps\n"
    lines += f"federated_eps8,1.0,{sigma},120\nfederated_not_private,,,\n"
    (tmp_path / "search.csv").write_text(lines, encoding="utf-8")
    assert spent.spent(study, [in_both])["CN"].epsilon == compose([[event]] * 2, 1e-4)
    known = {
        name: replace(study.rosters["CN"], size=n) for name, n in SETTINGS["recordings"]["rosters"].items()
    }
    both = dict.fromkeys(known, in_both["CN"])
    before = spent.spent(replace(study, rosters=known), [both])["CN"]
    assert before.before == sum(entry["runs"] for entry in SETTINGS["recordings"]["before"])
    assert before.epsilon > 1000


@pytest.mark.parametrize(
    ("start", "model", "clear"),
    [([4.2, 4.3, 4.2], [3.9, 3.9, 3.9], True), ([4.2, 4.3, 4.2], [4.1, 4.25, 4.3], False)],
)
def test_the_page_says_whether_training_helped(start, model, clear):
    rows = [*seeds(CONSTANT_VELOCITY.name, [5.0]), *seeds(START.name, start), *seeds(FEDERATED_8.name, model)]
    assert page.gain(rows).clear == clear
    cost = {"CN": spent.Spent(epsilon=1432.6, delta=1e-4, ladder=15, search=54, before=675)}
    text = page.lead(rows, cost)
    first = text.partition(". ")[0]
    assert "epsilon_search = 1,433" in first
    assert ("did not beat" in first) != clear
    assert "−" in page.verdict(rows)


def test_no_verdict_about_one_seed():
    assert page.gain([*seeds(START.name, [4.0]), *seeds(FEDERATED_8.name, [3.0])]) is None


@given(st.floats(1e-3, 1e5))
def test_epsilon_is_never_shown_smaller(epsilon):
    assert float(page.upwards(epsilon).replace(",", "")) >= epsilon * (1 - 1e-9)


def test_markers_hold_the_text(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n", encoding="utf-8")
    for text in ("new", "newer\nlines"):
        page.put(readme, "x", text)
        assert readme.read_text(encoding="utf-8") == f"a\n<!-- x -->\n{text}\n<!-- end of x -->\nb\n"
    with pytest.raises(NotReadyError):
        page.put(readme, "y", "text")


def test_rows_survive_the_file(tmp_path):
    rows = [row("a", "CN", "1", 3.25), replace(row("b", POOLED, MEAN, 4.0), epsilon=math.inf, delta=None)]
    result.write(rows, tmp_path / "results.csv")
    assert result.read(tmp_path / "results.csv") == rows
    with pytest.raises(NotReadyError):
        result.read(tmp_path / "none.csv")


def test_the_settings_file_is_toml_with_counts():
    text = (HERE / "study.toml").read_text(encoding="utf-8")
    assert all(entry["runs"] > 0 for entry in tomllib.loads(text)["recordings"]["before"])


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_command_climbs_resumes_and_refuses(tmp_path, capsys):
    path = tmp_path / "drives.parquet"
    table.write(drives({"CN": 30, "EU": 20}), path)
    rungs = ["--rungs", "best_predictor", "pooled_not_private", "alone_eps8"]
    command = ["--set", f"data.path={path}", *TINY, "--seeds", "1", *rungs, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    rows = result.read(tmp_path / "out" / "results.csv")
    always = {CONSTANT_VELOCITY.name, START.name, FEDERATED_8.name}
    assert {one.rung for one in rows} == {*always, *rungs[1:]}
    alone = next(one for one in rows if one.rung == "alone_eps8" and one.region == "EU")
    assert alone.epsilon <= 8 < alone.epsilon_search
    assert alone.identity == "physical"
    assert not (tmp_path / "out" / "pooled.parquet").exists()
    assert (tmp_path / "out" / "ladder.svg").stat().st_size > 1000
    kept = (tmp_path / "out" / "federated_eps8" / "seed=1" / "metrics.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "out" / "federated_eps8" / "seed=1" / "metrics.json").stat().st_mtime_ns == kept
    assert result.read(tmp_path / "out" / "results.csv") == rows
    # Another setting is another study: its runs may not be taken for these.
    assert main([*command, "--set", "training.local_steps=2"]) == 4
    assert "another experiment" in capsys.readouterr().err


def test_publishing_a_part_is_refused(tmp_path, capsys):
    assert main(["--publish", *TINY, "-o", str(tmp_path)]) == 2
    assert "--publish" in capsys.readouterr().err
