"""``fedfsd data import`` and ``formats`` for recordings of the large public sets and of a fleet."""

from __future__ import annotations

import json

import pytest
import written

from fedfsd.drive import table
from fedfsd.drive.reader import READERS

pytest_plugins = ["typing_user"]

FACTS = ("--region", "SG", "--licence", "CC0-1.0", "--identity", "recording", "--origin", "published")


def test_the_formats_are_listed_with_what_to_get_and_the_licence(fedfsd):
    said = fedfsd("data", "formats")
    assert said.code == 0
    assert all(f"{name}: {reader.about}" in said.out for name, reader in READERS.items())
    listed = fedfsd("data", "formats", "--json").document
    assert [one["format"] for one in listed] == list(READERS)
    assert all(one["files"] and one["download"] and one["licence"] for one in listed)


def test_a_folder_of_two_countries_is_imported_city_by_city(fedfsd, folder):
    for name, location in (("a", "singapore-onenorth"), ("b", "boston-seaport")):
        place = folder / "nuscenes" / name
        place.mkdir(parents=True)
        for kind, records in written.nuscenes_tables(name, location=location).items():
            (place / f"{kind}.json").write_text(json.dumps(records))
    words = ["data", "import", "nuscenes", "--format", "nuscenes", *FACTS, "-o", "sg.parquet"]
    refused = fedfsd(*words)
    assert refused.code == 4
    assert "a region is one jurisdiction" in refused.err
    assert sorted(path.name for path in folder.iterdir()) == ["nuscenes"]
    said = fedfsd(*words, "--city-only", "Singapore")
    assert said.code == 0, said.err
    assert "3 vehicles in 1 recordings, 120 rows" in said.out
    assert "city boston: 120 rows of 3 vehicles" in said.out
    assert fedfsd("data", "check", "sg.parquet").code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["nuscenes", "sg.parquet"]


def test_a_fleet_s_bags_are_of_the_cars_in_whose_folders_they_are(fedfsd, folder):
    for car in ("car-1", "car-2"):
        (folder / "fleet" / car).mkdir(parents=True)
        written.bag(folder / "fleet" / car, "monday")
    words = ["data", "import", "fleet", "--format", "bag", *FACTS, "-o", "a.parquet"]
    assert "1 vehicles in 2 recordings" in fedfsd(*words).out
    said = fedfsd(*words, "--vehicle", "{folder}", "--topic", "/odom")
    assert "2 vehicles in 2 recordings" in said.out, said.err
    assert set(table.read("a.parquet")[0].text("vehicle")) == {"bag/car-1", "bag/car-2"}
    wrong = fedfsd(*words, "--vehicle", "{car}")
    assert wrong.code == 2
    assert "{folder}" in wrong.err


@pytest.mark.parametrize("format", ["bag", "nuplan", "nuscenes", "waymo"])
def test_guess_says_that_a_folder_needs_no_mapping(fedfsd, folder, format):
    (folder / "in").mkdir()
    written.WRITERS[format](folder / "in", "a")
    said = fedfsd("data", "import", "in", "--format", "columns", "--guess", *FACTS, "-o", "m.toml")
    assert said.code == 2
    assert f"import them with --format {format}" in said.err
    assert not (folder / "m.toml").exists()
