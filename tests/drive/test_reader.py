"""The importer: keys, split, shifts, folders, and a reader from somebody else's package."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedfsd.cli.data_import import FORMATS
from fedfsd.drive import reader, table
from fedfsd.drive.reader import READERS, Drive, Options, Reader, import_drives, resolve
from fedfsd.drive.reader.drive import central_differences, drive
from fedfsd.drive.reader.spool import content
from fedfsd.errors import DataError, UsageError

FIXTURE = Path(__file__).parent / "fixture"
FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}


def line(path: Path, options: Options) -> list[Drive]:
    """A format of our own: each file is one car and the recording car, one point a second."""
    x = np.array([float(word) for word in path.read_text().split()])
    count = len(x)
    return [
        drive(
            path,
            options.recording,
            hz=1.0,
            vehicle=[f"{options.recording}/1"] * count + [f"{options.recording}/sensor"] * count,
            type=["Car"] * (2 * count),
            columns={"t": [*range(count)] * 2, "x": [*x, *x], "y": [0.0] * count + [3.0] * count},
            ego=[False] * count + [True] * count,
            city="Oslo",
        )
    ]


LINE = Reader(read=line, files="*.line")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package, as Python's import system sees one, that registers two readers."""
    info = tmp_path / "site" / "ours-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[fedfsd.readers]\nline = {__name__}:LINE\nbroken = {__name__}:FACTS\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.usefixtures("package")
def test_a_reader_from_another_package_is_found_and_its_ego_tracks_share_a_key(tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "trip.line").write_text("0 1 2")
    made = import_drives([tmp_path / "monday", tmp_path / "tuesday"], format="line", source="line", **FACTS)
    assert set(made.text("recording")) == {"monday/trip", "tuesday/trip"}
    assert set(made.text("vehicle")) == {"line/monday/trip/1", "line/tuesday/trip/1", "line/Oslo/ego"}
    assert set(made.rows["city"].to_pylist()) == {"Oslo"}
    assert made.identity == "recording"
    assert made.licence == "CC0"
    assert np.array_equal(made.test, [table.split_is_test(key) for key in made.text("vehicle")])


@pytest.mark.usefixtures("package")
def test_the_city_that_is_given_wins_and_the_region_stands_in_for_none(tmp_path):
    (tmp_path / "a.line").write_text("0 1")
    made = import_drives(tmp_path / "a.line", format="line", city="Bergen", source="trips", **FACTS)
    assert "trips/Bergen/ego" in set(made.text("vehicle"))


@pytest.mark.usefixtures("package")
def test_an_entry_point_that_is_no_reader_is_refused():
    with pytest.raises(UsageError, match=r"Reader\(read"):
        resolve("broken")


def test_the_built_in_formats_stand_in_a_dict():
    assert ", ".join(READERS) == FORMATS  # the help of fedfsd data import
    assert all(resolve(name) is entry for name, entry in READERS.items())
    with pytest.raises(UsageError, match=r"apolloscape \| argoverse2"):
        resolve("kitti")


def test_far_coordinates_are_shifted_by_whole_kilometres_alike_for_all_recordings(tmp_path):
    text = (FIXTURE / "apolloscape.txt").read_text()
    for name, x in (("result_1_frame.txt", "5004"), ("result_2_frame.txt", "5001")):
        rows = [line.split() for line in text.splitlines()]
        moved = [[*row[:3], f"{x}{row[3].zfill(5)}", *row[4:]] for row in rows]
        (tmp_path / name).write_text("\n".join(" ".join(row) for row in moved))
    made = import_drives(tmp_path, format="apolloscape", **FACTS)
    recording = np.array([name.rsplit("/")[-1] for name in made.text("recording")])
    x = {name: made.number("x")[recording == name] for name in ("1", "2")}
    assert np.abs(made.number("x")).max() < 10_000
    assert np.allclose(x["1"] - x["2"], (x["1"] - x["2"])[0])
    assert np.isclose((x["1"] - x["2"])[0] % 1000, 0, atol=0.01)
    assert np.abs(made.number("y")).max() < 100, "near coordinates stay as they are"


@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        ([], {}, "paths"),
        (["nowhere.xml"], {}, "no readable file"),
        (["empty"], {}, "no file named"),
        (["commonroad_2018b.xml", "copy/commonroad_2018b.xml"], {}, "each recording once"),
        (["commonroad_2018b.xml"], {"hz": 2.0}, "10 in the file"),
    ],
)
def test_what_cannot_be_imported_is_said(tmp_path, paths, options, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "copy").mkdir()
    for place in ("", "copy/"):
        (tmp_path / f"{place}commonroad_2018b.xml").write_bytes(
            (FIXTURE / "commonroad_2018b.xml").read_bytes()
        )
    with pytest.raises(DataError, match=said) as caught:
        import_drives([tmp_path / path for path in paths], format="commonroad", **FACTS, **options)
    assert caught.value.hint


def test_a_drive_is_checked_when_it_is_made():
    path = Path("a.line")
    good = {"hz": 1.0, "vehicle": ["1", "1"], "type": ["car", "car"], "columns": {"t": [0.0, 1.0]}}
    assert np.isnan(drive(path, "r", **good).columns["vx"]).all()
    for wrong in (
        {"hz": 0.0},
        {"hz": float("nan")},
        {"vehicle": [], "type": [], "columns": {}},
        {"vehicle": ["1"]},
        {"vehicle": ["1", "x" * 1000]},
        {"ego": [True]},
        {"type": ["car"]},
        {"hz": np.array([1.0])},
        {"columns": {"x": [0.0, 1.0]}},
    ):
        with pytest.raises(DataError):
            drive(path, "r", **(good | wrong))


def test_a_large_file_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert content(path, limit=100) == b"x" * 100
    with pytest.raises(DataError, match="at most 99"):
        content(path, limit=99)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        content(path, limit=9)


def test_central_differences_against_hand():
    vehicle = np.array(["a", "a", "a", "a", "b", "c", "c"])
    t = np.array([1.0, 0.0, 2.0, 9.0, 0.0, 0.0, 1.0])
    x = np.array([3.0, 0.0, 4.0, 50.0, 7.0, 1.0, -1.0])
    speed = central_differences(vehicle, t, x, max_gap_seconds=1.5)
    # a: 0, 3, 4 at 0, 1, 2 s, then a run of one row; b: one row; c: one step.
    assert np.allclose(speed, [2.0, 3.0, 1.0, np.nan, np.nan, -2.0, -2.0], equal_nan=True)


def test_the_module_exports_what_a_user_extends():
    assert {"Reader", "Options", "Drive", "drive", "import_drives", "resolve"} <= set(reader.__all__)
