"""nuScenes, nuPlan and Waymo Motion: what is read of each, and what is wrong with damaged ones."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.drive import table
from fedfsd.drive.reader import Facts, Options, import_drives, import_to, recognise
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError, NotReadyError

FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}


def read(format: str, path: Path, **options) -> table.Table:
    return import_drives(path, format=format, **(FACTS | options))


def outcome(format: str, path: Path, **options) -> tuple[table.Table | None, DataError | None]:
    try:
        return read(format, path, **options), None
    except DataError as error:
        return None, error


def rows(made: table.Table, key: str, *names: str) -> list[list[float]]:
    mine = made.text("vehicle") == key
    assert mine.any(), sorted(set(made.text("vehicle")))
    return np.round(np.stack([made.number(name)[mine] for name in names], axis=1), 3).tolist()


def only(output: Path, path: Path, *cities: str, format: str) -> table.Table:
    facts = Facts("SG", "CC0", "recording", "published", format, cities=cities)
    import_to(output, path, format=format, facts=facts, options=Options("", scratch=output.parent))
    return table.read(output)[0]


# --- nuScenes


def nuscenes(folder: Path, name: str = "scene-1", **changes) -> Path:
    """The tables of one scene; a change is what is written of a table, or makes it of its records."""
    folder.mkdir(exist_ok=True)
    tables = written.nuscenes_tables(name)
    for table_name, change in changes.items():
        tables[table_name] = change(tables[table_name]) if callable(change) else change
    for table_name, records in tables.items():
        if records is not None:
            text = records if isinstance(records, str) else json.dumps(records)
            (folder / f"{table_name}.json").write_text(text)
    return folder


def test_nuscenes_has_types_sizes_city_and_the_recording_car(tmp_path):
    made = read("nuscenes", nuscenes(tmp_path / "v1.0-mini"))
    car = f"nuscenes/scene-1/{written.token('scene-1', '1')}"
    assert rows(made, car, "t", "x", "y", "vx", "heading", "length", "width", "hz")[:2] == [
        [0, 10, 0, 5, 0, 4.5, 1.8, 2],
        [0.5, 12.5, 0, 5, 0, 4.5, 1.8, 2],
    ]
    ego = rows(made, "nuscenes/singapore/ego", "t", "x", "y", "vx", "length")
    assert ego[1][:4] == [0.5, 2, 50, 4]
    assert np.isnan(ego[0][4])
    assert set(made.text("type")) == {"car", "bus.rigid"}
    assert set(made.rows["country"].to_pylist()) == {"SGP"}
    assert set(made.rows["city"].to_pylist()) == {"singapore"}
    assert set(made.text("recording")) == {"scene-1"}


def test_nuscenes_leaves_bicycles_out_and_turns_quaternions(tmp_path):
    half = 0.5**0.5

    def turned(records: list[dict]) -> list[dict]:
        return [record | {"rotation": [half, 0, 0, half]} for record in records]

    def bicycle(records: list[dict]) -> list[dict]:
        return [{**one, "name": one["name"].replace("bus.rigid", "bicycle")} for one in records]

    made = read("nuscenes", nuscenes(tmp_path / "a", sample_annotation=turned, category=bicycle))
    car = f"nuscenes/scene-1/{written.token('scene-1', '1')}"
    assert {one[0] for one in rows(made, car, "heading")} == {1.571}
    assert {each.why: each.vehicles for each in made.left_out} == {
        "type vehicle.bicycle": 1,
        "type human.pedestrian.adult": 1,
    }


def test_nuscenes_velocities_end_where_a_key_frame_is_missing(tmp_path):
    gone = written.token("scene-1", "1", 20)
    made = read(
        "nuscenes",
        nuscenes(tmp_path / "a", sample_annotation=lambda all: [one for one in all if one["token"] != gone]),
    )
    car = f"nuscenes/scene-1/{written.token('scene-1', '1')}"
    found = rows(made, car, "t", "vx")
    assert len(found) == written.N - 1
    assert {speed for _, speed in found} == {5.0}


def test_one_import_is_of_one_country_and_a_city_can_be_chosen(tmp_path):
    for name, location in (("scene-1", "singapore-onenorth"), ("scene-2", "boston-seaport")):
        nuscenes(tmp_path / name, name, log=lambda all, where=location: [{**all[0], "location": where}])
    with pytest.raises(DataError, match=r"SGP \(singapore\), USA \(boston\)") as caught:
        read("nuscenes", tmp_path)
    assert "--city-only" in caught.value.hint
    made = only(tmp_path / "out.parquet", tmp_path, "singapore", format="nuscenes")
    assert set(made.text("recording")) == {"scene-1"}
    assert LeftOut("city boston", 3 * written.N, 3) in made.left_out
    with pytest.raises(DataError, match=r"only city (singapore|boston), city (singapore|boston)"):
        only(tmp_path / "no.parquet", tmp_path, "oslo", format="nuscenes")
    assert not (tmp_path / "no.parquet").exists()


CUT = {
    "no-table": ({"sensor": None}, r"no table sensor\.json"),
    "no-field": (
        {"sample": lambda all: [{**all[0], "timestamp": 1}, {"token": "a"}]},
        "record 2 without scene_",
    ),
    "no-list": ({"log": '{"token": "a"}'}, r"log\.json: no JSON list"),
    "no-object": ({"scene": "[1]"}, "record 1 without token"),
    "cut": (
        {"ego_pose": lambda all: json.dumps(all)[:-9]},
        r"ego_pose\.json: got JSON that is cut short",
    ),
    "nothing-annotated": ({"sample_annotation": "[]", "sample_data": "[]"}, "no vehicle track"),
    "deep": ({"sensor": "[" * 100_000}, r"sensor\.json: got JSON that is cut"),
    "empty": ({"category": ""}, r"category\.json: no JSON list"),
}


@pytest.mark.parametrize("case", CUT)
def test_damaged_tables_of_nuscenes_are_named(tmp_path, case):
    changes, said = CUT[case]
    with pytest.raises(DataError, match=said) as caught:
        read("nuscenes", nuscenes(tmp_path / "a", **changes))
    assert str(tmp_path / "a") in caught.value.place
    assert caught.value.hint


UNFIT = {
    "instance": ({"instance": lambda all: all[1:]}, "40 annotations whose sample or instance is not there"),
    "sample": ({"sample": lambda all: all[:-1]}, "3 annotations whose sample or instance is not there"),
    "pose": ({"ego_pose": lambda all: all[4:]}, "1 key frames whose ego_pose is not there"),
    "text": (
        {"sample_annotation": lambda all: [{**all[0], "translation": ["a", 1, 2]}, *all[1:]]},
        "1 records whose numbers are none",
    ),
    "short": (
        {"sample_annotation": lambda all: [{**all[0], "size": [1]}, *all[1:]]},
        "1 records whose numbers",
    ),
    "null": ({"ego_pose": lambda all: [{**all[0], "rotation": None}, *all[1:]]}, "1 records whose numbers"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_records_of_nuscenes_that_fit_nothing_are_counted(tmp_path, case):
    changes, said = UNFIT[case]
    with pytest.raises(DataError, match=said):
        read("nuscenes", nuscenes(tmp_path / "a", **changes))
    made = read("nuscenes", tmp_path / "a", skip_unfit=True)
    count = int(said.split()[0])
    assert {each.why: each.rows for each in made.left_out}["unfit row"] == count
    assert made.rows.num_rows >= 3 * written.N - max(count, 3)


def test_the_same_scene_in_two_folders_is_refused(tmp_path):
    for name in ("mini", "trainval"):
        nuscenes(tmp_path / name)
    with pytest.raises(DataError, match="a recording that"):
        read("nuscenes", tmp_path)


# --- nuPlan


def nuplan(folder: Path, *statements: str, **options) -> Path:
    folder.mkdir(exist_ok=True)
    path = written.nuplan(folder, "log-1", **options).file
    base = sqlite3.connect(path)
    for statement in statements:
        base.execute(statement)
    base.commit()
    base.close()
    return path


def test_nuplan_has_boxes_as_given_and_turns_the_recording_car_s_velocity(tmp_path):
    made = read("nuplan", nuplan(tmp_path))
    ego = rows(made, "nuplan/boston/ego", "t", "x", "y", "vx", "vy", "heading", "hz")
    assert ego[1] == [0.05, 50, 0.15, 0, 3, 1.571, 20]
    other = next(key for key in set(made.text("vehicle")) if not key.endswith("ego"))
    assert other.startswith("nuplan/log-1/")
    assert len(other.rsplit("/")[-1]) == 16
    assert {one[0] for one in rows(made, other, "length")} == {4.5}
    assert set(made.rows["country"].to_pylist()) == {"USA"}


@pytest.mark.parametrize(
    ("location", "city", "country"),
    [
        ("us-nv-las-vegas-strip", "las-vegas", "USA"),
        ("las_vegas", "las-vegas", "USA"),
        ("sg-one-north", "singapore", "SGP"),
        ("us-pa-pittsburgh-hazelwood", "pittsburgh", "USA"),
        ("Oslo", "oslo", None),
    ],
)
def test_nuplan_names_city_and_country_by_location_or_map(tmp_path, location, city, country):
    made = read("nuplan", nuplan(tmp_path, location=location))
    assert set(made.rows["city"].to_pylist()) == {city}
    assert set(made.rows["country"].to_pylist()) == {country}


SPOILED = {
    "no-table": ("DROP TABLE lidar_box", "no table lidar_box"),
    "no-column": ("ALTER TABLE ego_pose DROP COLUMN qz", "no column qz in table ego_pose"),
    "no-log": ("DELETE FROM log", "0 logs"),
    "two-logs": ("INSERT INTO log SELECT * FROM log", "2 logs"),
    "text": ("UPDATE lidar_box SET x = 'left'", "text where a number belongs"),
    "no-vehicle": ("DELETE FROM lidar_pc", "no vehicle track|boxes whose track"),
    "all-null": ("UPDATE lidar_pc SET timestamp = NULL", "no time|frames a second"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_nuplan_log_that_is_none_is_refused(tmp_path, case):
    statement, said = SPOILED[case]
    path = nuplan(tmp_path, statement)
    with pytest.raises(DataError, match=said) as caught:
        read("nuplan", path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_boxes_of_no_track_are_counted_and_nothing_is_written_beside_the_log(tmp_path):
    path = nuplan(tmp_path, "DELETE FROM track WHERE rowid = 1")
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"{written.N} boxes whose track"):
        read("nuplan", path)
    made = read("nuplan", path, skip_unfit=True)
    assert LeftOut("unfit row", written.N, 0) in made.left_out
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_log_that_a_program_still_writes_is_refused(tmp_path):
    path = nuplan(tmp_path)
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("UPDATE log SET date = '2026-01-01'")
    base.commit()
    with pytest.raises(DataError, match=r"still wait in log-1\.db-wal"):
        read("nuplan", path)
    base.close()
    assert read("nuplan", path).rows.num_rows


def test_a_name_with_signs_of_addresses_is_a_file_all_the_same(tmp_path):
    path = nuplan(tmp_path)
    odd = path.rename(tmp_path / "a?mode=rwc#b%20c.db")
    assert read("nuplan", odd).rows.num_rows == 3 * written.N


# --- Waymo Motion


def waymo(path: Path, *records: bytes) -> Path:
    path.write_bytes(written.tfrecord(*records))
    return path


def test_waymo_scenarios_keep_ids_apart_and_leave_invalid_states_out(tmp_path):
    made = read("waymo", waymo(tmp_path / "a.tfrecord", written.scenario("abc"), written.scenario("def")))
    assert set(made.text("vehicle")) == {"waymo/EU/ego", "waymo/abc/70", "waymo/def/70"}
    assert rows(made, "waymo/abc/70", "t", "x", "y", "vx", "heading", "length", "width", "hz")[1] == [
        *[0.1, 10.5, 0, 5, 0, 4.5, 1.8, 10]
    ]
    whole = written.scenario("abc")
    invalid = whole.replace(written.proto(11, 1), written.proto(11, 0), 3)
    made = read("waymo", waymo(tmp_path / "b.tfrecord", invalid))
    assert made.rows.num_rows == 2 * written.N - 3


def example(**changes) -> bytes:
    """A tf.Example of the same scene: 128 places for objects, of which three are taken; car 2 records."""
    places, times = 128, {"past": 10, "current": 1, "future": written.N - 11}
    arrays: dict[str, np.ndarray | bytes] = {
        "scenario/id": b"abc",
        "state/id": np.array([70.0, 71.0, 72.0] + [-1.0] * 125),
        "state/type": np.array([1.0, 1.0, 2.0] + [-1.0] * 125),
        "state/is_sdc": np.array([0, 1, 0] + [-1] * 125),
    }
    first = 0
    for span, count in times.items():
        n = np.arange(first, first + count)
        first += count
        motion = list(written.MOVERS.values())
        x = np.full((places, count), -1.0)
        y, speed, valid = x.copy(), x.copy(), np.zeros((places, count), int)
        for row, (start, along, across) in enumerate(motion):
            x[row], y[row], speed[row], valid[row] = start + along * n / 10, across, along, 1
        micros = np.where(valid, np.round((written.START + n / 10) * 1e6).astype(np.int64), -1)
        values = {"x": x, "y": y, "velocity_x": speed, "velocity_y": 0 * x, "bbox_yaw": 0 * x}
        values |= {"length": 0 * x + 4.5, "width": 0 * x + 1.8, "valid": valid, "timestamp_micros": micros}
        arrays |= {f"state/{span}/{name}": value.ravel() for name, value in values.items()}
    found = b""
    for name, value in (arrays | changes).items():
        if value is None:
            continue
        if isinstance(value, bytes):
            kind = written.proto(1, written.proto(1, value))
        elif value.dtype.kind == "f":
            kind = written.proto(2, written.proto(1, struct.pack(f"<{len(value)}f", *value)))
        else:
            kind = written.proto(3, written.proto(1, b"".join(written.varint(int(v) % 2**64) for v in value)))
        found += written.proto(1, written.proto(1, name.encode()) + written.proto(2, kind))
    return written.proto(1, found)


def test_a_tf_example_is_the_same_scenario(tmp_path):
    made = read("waymo", waymo(tmp_path / "a.tfrecord", example()))
    same = read("waymo", waymo(tmp_path / "b.tfrecord", written.scenario("abc")))
    assert made.left_out == same.left_out
    order = [("vehicle", "ascending"), ("t", "ascending")]
    for name in same.rows.column_names:
        a, b = (one.rows.sort_by(order)[name] for one in (made, same))
        assert np.allclose(a, b, atol=1e-4) if name in table.NUMBER_COLUMNS else a.equals(b), name


def bad_crc(data: bytes) -> bytes:
    return data[:400] + bytes([data[400] ^ 1]) + data[401:]


def without_order() -> bytes:
    """A scenario whose second time is before its first."""
    return written.scenario("b").replace(struct.pack("<d", written.START + 0.1), bytes(8), 1)


RECORDS = {
    "not-ascending": (without_order, "do not ascend"),
    "no-id": (lambda: written.scenario(""), "no scenario id"),
    "another-length": (
        lambda: written.scenario("b") + written.proto(1, written.START + 99),
        "another length",
    ),
    "garbage": (lambda: b"\xff" * 50, "neither a Scenario nor a tf.Example"),
    "nothing": (lambda: b"", "no scenario id"),
    "no-feature": (lambda: example(**{"state/is_sdc": None}), "no numbers state/is_sdc"),
    "short-feature": (lambda: example(**{"state/past/y": np.zeros(3)}), "state/../y of another length"),
    "text-feature": (lambda: example(**{"state/id": b"1"}), "no numbers state/id"),
    "two-objects": (lambda: example(**{"state/type": np.ones(2)}), "arrays of different lengths"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_is_no_scenario_is_named_and_the_others_are_read(tmp_path, case):
    make, said = RECORDS[case]
    path = waymo(tmp_path / "a.tfrecord", written.scenario("a"), make(), written.scenario("c"))
    with pytest.raises(DataError, match=said) as caught:
        read("waymo", path)
    assert f"{path}: record 2" in caught.value.place
    made = read("waymo", path, skip_unfit=True)
    assert set(made.text("recording")) == {"a", "c"}
    assert LeftOut("1 unfit records of a.tfrecord", 0, 0) in made.left_out


def test_a_flipped_bit_is_found_by_its_checksum_and_the_rest_is_read(tmp_path):
    path = waymo(tmp_path / "a.tfrecord", written.scenario("a"), written.scenario("b"))
    path.write_bytes(bad_crc(path.read_bytes()))
    with pytest.raises(DataError, match="record 1: got a record whose checksum is wrong"):
        read("waymo", path)
    assert set(read("waymo", path, skip_unfit=True).text("recording")) == {"b"}


def test_a_cut_file_is_named_with_the_byte_where_it_ends(tmp_path):
    path = waymo(tmp_path / "a.tfrecord", written.scenario("a"), written.scenario("b"))
    size = len(written.tfrecord(written.scenario("a")))
    path.write_bytes(path.read_bytes()[: size + 7])
    with pytest.raises(DataError, match=f"record 2, byte {size}: got a record that is cut short"):
        read("waymo", path)


def test_a_file_that_turns_out_unfit_leaves_no_trace(tmp_path, monkeypatch):
    """Neither its recording's name nor where it lies counts, though most of it was read."""
    with monkeypatch.context() as patch:
        patch.setitem(written.MOVERS, "1", (500_000.0, 5.0, 0.0))
        far = written.tfrecord(written.scenario("s"), written.scenario("t"))
    (tmp_path / "a.tfrecord").write_bytes(far + b"cut")
    waymo(tmp_path / "b.tfrecord", written.scenario("s"))
    made = read("waymo", tmp_path, skip_unfit=True)
    assert set(made.text("recording")) == {"s"}
    assert made.number("x").min() == 10
    assert [each.files for each in made.left_out if each.files] == [1]
    assert LeftOut("type pedestrian", written.N, 1) in made.left_out


# --- any damage


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 60), st.binary(max_size=12)), min_size=1, max_size=3
    ),
    format=st.sampled_from(["nuscenes", "nuplan", "waymo"]),
    skip=st.booleans(),
)
def test_any_damage_is_a_table_or_an_error_with_a_place(tmp_path, changes, format, skip):
    """Bytes are replaced anywhere: never a bug."""
    folder = tmp_path / format
    if not folder.exists():
        folder.mkdir()
        (folder / "whole").write_bytes(written.WRITERS[format](folder, "a").file.read_bytes())
    (path,) = (each for each in folder.rglob("*") if each.is_file() and _is_file_of(format, each))
    data = (folder / "whole").read_bytes()
    for at, gone, new in changes:
        place = int(at * len(data))
        data = data[:place] + new + data[place + gone :]
    path.write_bytes(data)
    made, error = outcome(format, path, skip_unfit=skip)
    if made is None:
        assert str(folder) in str(error)
        assert error.hint
    else:
        assert made.rows.num_rows
        assert skip or not any("unfit" in each.why for each in made.left_out)


def _is_file_of(format: str, path: Path) -> bool:
    return {"nuscenes": "sample_annotation.json", "nuplan": ".db", "waymo": "tfrecord"}[format] in path.name


# --- what an installation lacks, and what a folder holds


@pytest.mark.parametrize(
    ("format", "module"), [("waymo", "google_crc32c"), ("waymo", "google.protobuf.message")]
)
def test_a_missing_extra_is_named_with_the_command(tmp_path, monkeypatch, format, module):
    import sys

    path = written.WRITERS[format](tmp_path, "a").file
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotReadyError, match=rf'pip install "\.\[{format}\]"'):
        read(format, path)


@pytest.mark.parametrize("format", sorted({*written.WRITERS} - {"columns", "argoverse2"}))
def test_a_folder_s_format_is_recognised_by_its_files(tmp_path, format):
    written.WRITERS[format](tmp_path, "a")
    assert recognise.format_of(tmp_path) == format
    other = "waymo" if format != "waymo" else "nuplan"
    with pytest.raises(DataError) as caught:
        read(other, tmp_path)
    assert caught.value.hint == f"there are files of --format {format}"
