"""``fedfsd data`` and ``fedfsd config`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

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
    assert (good.code, good.out) == (0, "good.parquet: nothing found\n")


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


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("policy", "eu.toml"),
        ("region", "region/eu.toml"),
        ("train", "train/eu.toml"),
        ("transfer", "transfer/example.toml"),
    ],
)
def test_the_files_of_a_deployment_are_checked_and_every_error_is_shown(fedfsd, folder, kind, file):
    deployed = Path(__file__).parents[2] / "clients" / "deploy" / file
    assert fedfsd("config", "check", deployed, "--kind", kind).code == 0
    said = fedfsd("config", "check", deployed, "--kind", kind, "--set", "strange=1", "--set", "format=true")
    assert said.code == 3
    assert "strange" in said.err
    assert fedfsd("config", "check", "policy.toml").code == 3


@pytest.mark.parametrize("kind", ["experiment", "policy", "region", "train", "coordinator", "transfer"])
def test_config_schema_is_one_document_either_way(fedfsd, kind):
    plain, as_json = fedfsd("config", "schema", kind), fedfsd("config", "schema", kind, "--json")
    assert json.loads(plain.out) == as_json.document
    assert as_json.document["additionalProperties"] is False
