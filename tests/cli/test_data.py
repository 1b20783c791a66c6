"""``fedfsd data`` and ``fedfsd config`` as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import drives

from fedfsd.cli import data_import
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.drive.reader import READERS

pytest_plugins = ["typing_user"]

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "loader_samples"


def test_generated_traffic_is_a_clean_table_with_a_picture(fedfsd, folder):
    words = ["data", "generate", "--region", "SG", "--vehicles", "12", "--seed", "3", "-o", "sg.parquet"]
    said = fedfsd(*words, "--json")
    assert said.code == 0, said.err
    assert said.document["regions"] == ["SG"]
    (made,) = table.read("sg.parquet")
    assert made.origin == "synthetic"
    assert len(set(made.text("vehicle"))) == 12
    first = (folder / "sg.parquet").read_bytes()
    assert fedfsd(*words).code == 0
    assert (folder / "sg.parquet").read_bytes() == first
    shown = fedfsd("data", "show", "sg.parquet", "-o", "sg.svg")
    assert shown.code == 0
    assert (folder / "sg.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in folder.iterdir()) == ["sg.parquet", "sg.svg"]


def test_a_finding_has_recording_count_and_fix_and_only_strict_minds(fedfsd, folder):
    made = drives({"CN": 6})
    rows = made.rows
    for column in ("vx", "vy"):
        turned = [-value for value in rows[column].to_pylist()]
        rows = rows.set_column(rows.column_names.index(column), column, [turned])
    table.write(table.Table(rows, made.licence, made.identity, made.origin), folder / "bad.parquet")
    said = fedfsd("data", "check", "bad.parquet", "--json")
    assert said.code == 0
    findings = said.document["findings"]
    assert {"name", "recording", "count", "total", "unit", "fix", "severity"} <= findings[0].keys()
    names = {one["name"] for one in findings}
    text = fedfsd("data", "check", "bad.parquet")
    assert text.code == 0
    assert all(name in text.out for name in names)
    assert "fix: " in text.out
    assert fedfsd("data", "check", "bad.parquet", "--strict").code == 4
    assert fedfsd("data", "check", "bad.parquet", "--strict", "--json").document == said.document
    table.write(made, folder / "good.parquet")
    good = fedfsd("data", "check", "good.parquet", "--strict")
    assert good.code == 0
    assert good.out.startswith("good.parquet: nothing found\nCN: N = ")


def test_a_check_counts_training_vehicles_windows_and_what_dropped_them(fedfsd, folder):
    """N is what a policy's roster wants: with test vehicles in it a statement would say too much."""
    made = drives({"CN": 20, "EU": 4})
    table.write(made, folder / "good.parquet")
    said = fedfsd("data", "check", "good.parquet", "--json").document["regions"]
    training = {key for key, test in zip(made.text("vehicle"), made.test, strict=True) if not test}
    assert said["CN"]["vehicles"] == len([key for key in training if key.startswith("CN")]) < 20
    assert said["CN"]["with_window"] == said["CN"]["vehicles"]
    (folder / "long.toml").write_text('name = "x"\ntask.options.future_seconds = 8.0\n')
    text = fedfsd("data", "check", "good.parquet", "--experiment", "long.toml").out
    assert f"CN: N = {said['CN']['vehicles']} training vehicles, " in text
    assert "dropped: " in text
    assert "stretches shorter than 10 s" in text


def test_a_region_without_a_window_is_an_error_of_the_check(fedfsd, folder):
    made = drives({"CN": 6})
    short = made.rows.filter(made.rows["t"].to_numpy() < 0.4)
    table.write(replace(made, rows=short), folder / "short.parquet")
    said = fedfsd("data", "check", "short.parquet", "--strict")
    assert said.code == 4
    assert "error: no-window in CN" in said.out
    assert "0 with a window, 0 windows" in said.out


def test_a_check_names_the_file_without_a_row_and_what_was_left_out_of_others(fedfsd, folder):
    (folder / "tables").mkdir()
    made = drives({"CN": 6})
    table.write(replace(made, rows=made.rows.slice(0, 0)), folder / "tables" / "US.parquet")
    sides = [not made.test[0], *made.test[1:]]
    rows = made.rows.drop_columns(["test"]).append_column("test", [sides])
    pq.write_table(rows, folder / "tables" / "CN.parquet")
    said = fedfsd("data", "check", "tables", "--strict")
    assert said.code == 4
    assert "error: empty-table in US.parquet" in said.out
    assert "error: both-sides in CN, CN.parquet\n  1 of 6 vehicles" in said.out
    found = fedfsd("data", "check", "tables", "--json").document["findings"]
    assert {"empty-table", "both-sides"} <= {one["name"] for one in found}


def test_the_help_names_every_format():
    assert set(READERS) <= set(data_import.FORMATS.split(", "))


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of the readers are not here")
def test_imported_recordings_are_a_table_that_can_be_checked(fedfsd):
    words = ["--region", "US", "--licence", "CC BY-NC-SA 4.0", "--identity", "recording"]
    place = [SAMPLES / "argoverse2", "--format", "argoverse2", "--origin", "published", "-o", "us.parquet"]
    said = fedfsd("data", "import", *place, *words, "--json")
    assert said.code == 0, said.err
    assert said.document["vehicles"] > 10
    (made,) = table.read("us.parquet")
    assert (made.licence, made.identity, made.origin) == ("CC BY-NC-SA 4.0", "recording", "published")
    assert fedfsd("data", "check", "us.parquet").code == 0


def test_config_check_fills_in_every_default(fedfsd, folder):
    (folder / "x.toml").write_text('name = "x"\n', encoding="utf-8")
    said = fedfsd("config", "check", "x.toml", "--set", "privacy.target_epsilon=3", "--json")
    assert said.code == 0
    expected = load(Experiment, {"name": "x"}, overrides=["privacy.target_epsilon=3"])
    assert said.document == expected.model_dump(mode="json")
    text = fedfsd("config", "check", "x.toml").out
    assert text.startswith("x.toml: a valid experiment\n")
    assert "  privacy.target_epsilon = 8.0\n" in text
    (folder / "policy.toml").write_text("max_epsilon = 2\n", encoding="utf-8")
    assert fedfsd("config", "check", "policy.toml", "--kind", "policy").code == 0
    assert fedfsd("config", "check", "policy.toml").code == 3


@pytest.mark.parametrize("kind", ["experiment", "policy"])
def test_config_schema_is_one_document_either_way(fedfsd, kind):
    plain, as_json = fedfsd("config", "schema", kind), fedfsd("config", "schema", kind, "--json")
    assert json.loads(plain.out) == as_json.document
    assert as_json.document["additionalProperties"] is False
