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
from fedfsd.drive.check.finding import WHAT
from fedfsd.drive.reader import READERS

pytest_plugins = ["typing_user"]

SHARED = Path(__file__).parents[3] / "shared"
SAMPLES = SHARED / "data" / "loader_samples"
CASES = SHARED / "cases" / "data"
FACTS = ("--region", "EU", "--licence", "CC0-1.0", "--identity", "recording", "--origin", "published")


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
    assert {"name", "recording", "count", "total", "unit", "fix", "severity", "page"} <= findings[0].keys()
    names = {one["name"] for one in findings}
    text = fedfsd("data", "check", "bad.parquet")
    assert text.code == 0
    assert all(name in text.out for name in names)
    assert "fix: " in text.out
    assert all(f"\n  page: docs/data/{name}.md\n" in text.out for name in names)
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
    assert f"error: both-sides in CN, CN.parquet\n  {WHAT['both-sides']}\n  1 of 6 vehicles" in said.out
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


def _interaction(kinds: dict[int, str], *, vx: str = "7.0") -> str:
    """A car a number, on a lane of its own; ``vx`` stands in the fourth line."""
    rows = [
        f"{car},{n},{100 * n},{kind},{0.7 * n:.2f},{4 * car},{vx if (car, n) == (1, 2) else '7.0'},0.0"
        for car, kind in kinds.items()
        for n in range(80)
    ]
    return "\n".join(["track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy", *rows, ""])


def test_what_an_import_leaves_out_is_counted_in_text_json_and_table(fedfsd, folder):
    (folder / "vehicle_tracks_1.csv").write_text(_interaction({1: "car", 2: " SUV ", 3: "suv", 4: "tram"}))
    words = ("data", "import", "vehicle_tracks_1.csv", "--format", "interaction", *FACTS, "-o", "a.parquet")
    text = fedfsd(*words)
    assert text.code == 0, text.err
    assert "left out: 240 rows, 3 vehicles by their type\n  type suv: 160 rows of 2 vehicles\n" in text.out
    said = fedfsd(*words, "--json").document
    assert (said["rows"], said["vehicles"]) == (80, 1)
    assert {"why": "type tram", "rows": 80, "vehicles": 1, "files": 0} in said["left_out"]
    (made,) = table.read("a.parquet")
    assert [each.why for each in made.left_out] == ["type suv", "type tram"]


def test_all_that_is_unfit_is_named_at_once_and_skipped_on_request(fedfsd, folder):
    (folder / "drives").mkdir()
    for number, change in enumerate(({}, {"vx": "NA"}, {"vx": "fast"})):
        (folder / f"drives/vehicle_tracks_{number}.csv").write_text(_interaction({1: "car"}, **change))
    (folder / "drives/vehicle_tracks_3.csv").write_text("speed,place\n1,2\n")
    words = ("data", "import", "drives", "--format", "interaction", *FACTS, "-o", "a.parquet")
    error = fedfsd(*words, "--json")
    assert error.code == 4
    document = error.document["error"]
    assert [one["place"].removeprefix(f"{folder}/drives/vehicle_tracks_") for one in document["unfit"]] == [
        "1.csv: line 4, column vx",
        "2.csv: line 4, column vx",
        "3.csv",
    ]
    assert "3 of 4 files" in document["place"]
    assert not (folder / "a.parquet").exists()
    said = fedfsd(*words, "--skip-unfit")
    assert said.code == 0, said.err
    assert (
        "left out: 2 rows, 1 files\n  unfit row: 2 rows of 2 vehicles\n  unfit file vehicle_tracks_3.csv"
        in said.out
    )


def test_any_table_is_imported_by_a_mapping_that_may_be_guessed(fedfsd, folder):
    rows = [f"{100 * n};7;{0.7 * n:.2f};3;{'car' if n < 70 else 'person'}" for n in range(90)]
    (folder / "export.csv").write_text("\n".join(["time_ms;car_id;pos_x;pos_y;class", *rows]))
    words = ("data", "import", "export.csv", "--format", "columns", *FACTS, "-o")
    asked = fedfsd(*words, "a.parquet")
    assert (asked.code, "--guess" in asked.err) == (4, True)
    said = fedfsd(*words, "m.toml", "--guess", "--json").document
    assert said["sure"]["units.time"] == 0.95
    text = fedfsd(*words, "m.toml", "--guess").out
    assert "look at" in text
    assert 'time = "time_ms"' in text
    mapping = (folder / "m.toml").read_text()
    (folder / "m.toml").write_text(mapping.replace('"person" = "person"\n', ""))
    made = fedfsd(*words, "a.parquet", "--mapping", "m.toml")
    assert made.code == 0, made.err
    assert "1 vehicles in 1 recordings, 70 rows" in made.out
    assert "type person: 20 rows of 1 vehicles" in made.out
    for wrong in (("--mapping", "m.toml"), ("--guess",)):
        refused = fedfsd(*words[:4], "interaction", *FACTS, "-o", "b.parquet", *wrong)
        assert (refused.code, "--format columns" in refused.err) == (2, True)


# The end of each case: whether its import succeeds, what is said of it, what the data check finds besides
# notes, and the vehicles and rows that are read. Each has a single defect.
ENDS = {
    "clean": (0, "8 vehicles in 1 recordings, 960 rows", {}, "nothing found"),
    "time_unix_ms": (0, "8 vehicles in 1 recordings, 960 rows", {}, "nothing found"),
    "one_hz": (
        0,
        "320 rows",
        {"no-window": "shorter than 5 s (a gap of over 0.75 s ends one)"},
        "0 with a window",
    ),
    "lat_lon": (
        0,
        "",
        {"position-degrees": "degrees", "no-window": "travel less than 3 m"},
        "0 with a window",
    ),
    "four_second_cases": (0, "8 vehicles in 1 recordings, 800 rows", {}, "nothing found"),
    "heading_beyond_2pi_parked": (0, "11 vehicles", {}, "not wrapped"),
    "velocity_in_vehicle_frame": (
        0,
        "",
        {"velocity-frame": "matches after rotation by the heading"},
        "8 of 8",
    ),
    "feet": (0, "", {"size-unit": "3.28"}, "8 of 8 tracks"),
    "pixels": (
        0,
        "",
        {"position-scale": "units are a metre (pixels?)", "no-window": "25 m"},
        "8 of 8 tracks",
    ),
    # Both of the two that are left are test vehicles.
    "types_not_known": (0, "6 vehicles by their type", {"no-window": "are test vehicles"}, "0 with a window"),
    "cr_only": (0, "8 vehicles in 1 recordings, 960 rows", {}, ""),
    "semicolon": (0, "8 vehicles in 1 recordings, 960 rows", {}, ""),
    "gz": (0, "8 vehicles in 1 recordings, 960 rows", {}, ""),
    "na_cell": (4, "line 5, column vx: got 'NA'", None, ""),
    "time_in_s": (4, "as if s were given for ms", None, ""),
    "folder_one_without_vehicle": (4, "2 of 5 files", None, ""),
    "cr_initial_state_twice": (0, "repeated row: 4 rows of 4 vehicles", {}, ""),
    "mixed_rates": (0, "1680 rows", {}, "nothing found"),
}


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not on this machine")
@pytest.mark.parametrize("case", ENDS)
def test_small_files_with_a_defect_each_end_as_they_should(fedfsd, folder, case):
    code, said, findings, checked = ENDS[case]
    format = "commonroad" if case.startswith(("cr_i", "folder")) else "interaction"
    words = ("data", "import", CASES / case, "--format", format, *FACTS, "-o", "a.parquet")
    made = fedfsd(*words)
    assert made.code == code
    assert said in made.out + made.err
    if case == "folder_one_without_vehicle":
        assert fedfsd(*words, "--skip-unfit", "--json").document["recordings"] == 3
    if findings is None:
        return
    document = fedfsd("data", "check", "a.parquet", "--json").document["findings"]
    found = {one["name"]: one["fix"] for one in document if one["severity"] != "note"}
    assert found.keys() == findings.keys()
    assert all(words in found[name] for name, words in findings.items())
    assert not {"gap", "jump"} & {one["name"] for one in document} or case == "one_hz"
    assert checked in fedfsd("data", "check", "a.parquet").out


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not on this machine")
def test_two_sites_with_one_file_name_share_no_key(fedfsd, folder):
    (folder / "both").mkdir()
    for region, site in (("CN", "DR_CHN_A"), ("EU", "DR_DEU_B")):
        words = ("--region", region, *FACTS[2:], "-o", f"both/{region}.parquet")
        made = fedfsd("data", "import", CASES / "two_sites" / site, "--format", "interaction", *words)
        assert made.code == 0
    assert fedfsd("data", "check", "both").out.startswith("both: nothing found")


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
        ("transfer", "../../fedfsd/audit/declaration.toml"),
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
