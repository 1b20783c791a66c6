"""Files made to harm: one error each, without waiting for ever and without much memory."""

from __future__ import annotations

import os
import resource
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import written

from fedfsd.drive.reader import argoverse2, delimited, import_drives, nuplan, spool, waymo
from fedfsd.drive.reader.mapping import Mapping
from fedfsd.errors import DataError

FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}
TABLE = "track_id,timestamp_ms,agent_type,x,y\n"
NEVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
MIB = 2**20


def refused(path: Path, format: str, **options) -> DataError:
    """The one error, after which no more than 300 MiB more than before were held."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        import_drives(path, format=format, **FACTS, **options)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    assert str(path) in caught.value.place
    return caught.value


@pytest.mark.parametrize("row", ["", "1,100,car,0,0\n"])
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_is_refused_before_it_grew(tmp_path, monkeypatch, codec, row):
    monkeypatch.setattr(spool, "HELD", MIB)
    rows = row * (4 * MIB // len(row)) if row else "0" * 4 * MIB
    path = tmp_path / "vehicle_tracks_000.csv.gz"
    path.write_bytes(pa.compress((TABLE + rows).encode(), codec=codec, asbytes=True))
    assert "200 times its size" in refused(path, "interaction").got


@pytest.mark.parametrize("format", ["columns", "argoverse2"])
def test_a_table_of_many_rows_in_few_bytes_is_refused(tmp_path, monkeypatch, format):
    monkeypatch.setattr(delimited, "MANY_ROWS", 2**12)
    names = argoverse2.COLUMNS if format == "argoverse2" else ("id", "t", "x", "y")
    path = tmp_path / "scenario_a.parquet"
    pq.write_table(pa.table({name: pa.repeat(1.0, MIB) for name in names}), path)
    columns = {"vehicle": "id", "time": "t", "x": "x", "y": "y"}
    options = {"mapping": Mapping.model_validate({"columns": columns})} if format == "columns" else {}
    assert "rows in" in refused(path, format, **options).got


def test_rows_that_are_computed_are_not_read(tmp_path):
    made = written.WRITERS["nuplan"](tmp_path, "a")
    with closing(sqlite3.connect(made.file)) as base:
        columns = ", ".join(f"i AS {name}" for name in nuplan.TABLES["lidar_box"])
        base.executescript(f"DROP TABLE lidar_box; CREATE VIEW lidar_box AS {NEVER} SELECT {columns} FROM n;")
    assert "computed" in refused(made.file, "nuplan").got
    bag = written.WRITERS["bag"](tmp_path, "b")
    with closing(sqlite3.connect(bag.file)) as base:
        base.executescript(
            "DROP TABLE messages;"
            f"CREATE VIEW messages AS {NEVER} SELECT i id, 1 topic_id, i timestamp, x'00' data FROM n;"
        )
    assert "computed" in refused(bag.file, "bag").got


def test_a_trigger_and_other_tables_do_no_harm(tmp_path):
    made = written.WRITERS["nuplan"](tmp_path, "a")
    whole = import_drives(made.file, format="nuplan", **FACTS)
    with closing(sqlite3.connect(made.file)) as base:
        base.executescript(
            "CREATE TABLE scene (token);"
            "CREATE TRIGGER t AFTER INSERT ON scene BEGIN DELETE FROM lidar_box; END;"
            f"CREATE VIEW endless AS {NEVER} SELECT i FROM n;"
        )
    assert import_drives(made.file, format="nuplan", **FACTS).rows.num_rows == whole.rows.num_rows
    assert [each.name for each in tmp_path.iterdir()] == [made.file.name]


@pytest.mark.parametrize(
    "text", ["[" * MIB, '[{"a":' * 200_000, "[" + '"' + "a" * 2 * MIB, "[1e999999," * 1000]
)
def test_json_without_an_end_is_refused(tmp_path, text):
    made = written.WRITERS["nuscenes"](tmp_path, "a")
    (made.file.parent / "scene.json").write_text(text)
    with pytest.raises(DataError, match=r"scene\.json"):
        import_drives(made.file, format="nuscenes", **FACTS)


def test_a_record_of_huge_length_is_cut_short(tmp_path):
    for length in (2**27, 2**40, 2**64 - 1):
        head = struct.pack("<Q", length)
        head += struct.pack("<I", waymo.masked(google_crc32c.value(head)))
        path = tmp_path / "a.tfrecord"
        path.write_bytes(head + b"x" * 1000)
        refused(path, "waymo")


def test_a_field_of_huge_length_is_no_scenario(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(written.tfrecord(b"\x12\xff\xff\xff\xff\x07" + b"\x0a" * 5000))
    refused(path, "waymo")


def test_an_endless_element_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fedfsd.drive.reader.plain_xml.MAX_BYTES", 2**15)
    head = '<commonRoad commonRoadVersion="2020a" timeStepSize="0.1">'
    path = tmp_path / "a.xml"
    for part in ("<dynamicObstacle>", "<a>", "<a><b/></a>", "text"):
        path.write_text(head + part * (2**17 // len(part)))
        refused(path, "commonroad")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    good = written.WRITERS["interaction"](tmp_path, "good")
    os.mkfifo(tmp_path / "vehicle_tracks_pipe.csv")
    (tmp_path / "vehicle_tracks_loop.csv").symlink_to(tmp_path / "vehicle_tracks_loop.csv")
    (tmp_path / "vehicle_tracks_lost.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "vehicle_tracks_folder.csv").mkdir()
    (tmp_path / "up").symlink_to(tmp_path)
    with pytest.raises(DataError) as caught:
        import_drives(tmp_path, format="interaction", **FACTS)
    assert caught.value.place == "3 of 4 files"
    made = import_drives(tmp_path, format="interaction", skip_unfit=True, **FACTS)
    assert sum(each.files for each in made.left_out) == 3
    whole = import_drives(good.file, format="interaction", **FACTS)
    assert np.array_equal(np.sort(made.number("x")), np.sort(whole.number("x")))
    for device in ("/dev/zero", tmp_path / "vehicle_tracks_pipe.csv"):
        for format in ("interaction", "apolloscape", "bag", "waymo", "commonroad", "scenarionet"):
            refused(Path(device), format)
