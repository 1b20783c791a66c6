"""The table format: what is refused, with which words, and what survives a round trip."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.drive import table
from fedfsd.drive.table import Table, of_rows
from fedfsd.errors import DataError, FormatError


def columns(vehicles: list[str], **changes) -> dict:
    """One row for each entry of ``vehicles``."""
    count = len(vehicles)
    values: dict = {name: np.zeros(count, np.float32) for name in table.NUMBER_COLUMNS}
    values |= {name: ["r1"] * count for name in table.TEXT_COLUMNS}
    values |= {"region": ["EU"] * count, "vehicle": vehicles, "test": [False] * count}
    values |= changes
    return {name: value for name, value in values.items() if value is not None}


def written(path, values: dict, metadata: dict[str, str | bytes] | None = None):
    """A Parquet file as another program might have made it."""
    rows = pa.table(values).replace_schema_metadata(metadata or {})
    pq.write_table(rows, path)
    return path


def refusal(path) -> DataError:
    """Of a file that cannot be read, or of what it holds where people can still be asked."""
    with pytest.raises(DataError) as caught:
        table.demand_sound(table.read(path))
    assert caught.value.exit_code == 4
    assert caught.value.expected
    assert caught.value.hint
    assert str(path) in caught.value.place
    return caught.value


@pytest.mark.parametrize("name", [*table.TEXT_COLUMNS, *table.NUMBER_COLUMNS, "test"])
def test_a_missing_column_is_named(tmp_path, name):
    error = refusal(written(tmp_path / "a.parquet", columns(["v1"], **{name: None})))
    assert error.place.endswith(f"column {name}")
    assert error.got == "missing"


def test_all_missing_columns_are_named_at_once(tmp_path):
    assert "column t, x" in refusal(written(tmp_path / "a.parquet", columns(["v"], t=None, x=None))).place


@pytest.mark.parametrize(
    ("name", "values", "got"),
    [
        ("x", ["far away"], "1 values of type string that do not fit"),
        ("t", [[0.5]], "list"),
        ("test", ["perhaps"], "1 values of type string that do not fit"),
        ("vehicle", [{"key": 1}], "struct"),
    ],
)
def test_a_column_of_another_type_is_refused_without_its_values(tmp_path, name, values, got):
    error = refusal(written(tmp_path / "a.parquet", columns(["v1"], **{name: values})))
    assert error.place.endswith(f"column {name}")
    assert got in str(error.got)
    assert "far away" not in str(error)


@pytest.mark.parametrize("name", ["region", "recording", "vehicle", "test"])
def test_an_empty_key_is_refused(tmp_path, name):
    filled = True if name == "test" else "k"
    error = refusal(written(tmp_path / "a.parquet", columns(["v", "w"], **{name: [filled, None]})))
    assert error.place.endswith(f"column {name}")
    assert error.got == "empty cells"


def test_an_unknown_number_is_not_a_refusal(tmp_path):
    path = written(tmp_path / "a.parquet", columns(["v", "w"], vx=[None, 1.0], x=[None, 2.0]))
    (read,) = table.read(path)
    np.testing.assert_array_equal(read.number("vx"), [np.nan, 1.0])
    np.testing.assert_array_equal(read.number("x"), [np.nan, 2.0])


def test_a_newer_version_is_refused(tmp_path):
    path = written(tmp_path / "a.parquet", columns(["v"]), {"fedfsd.version": "3"})
    with pytest.raises(
        FormatError, match=r"fedfsd\.version: got format 3, expected one of 1, 2; fix: upgrade"
    ):
        table.read(path)


@pytest.mark.parametrize("version", ["1.5", "next", ""])
def test_a_version_that_is_no_number_is_refused(tmp_path, version):
    error = refusal(written(tmp_path / "a.parquet", columns(["v"]), {"fedfsd.version": version}))
    assert error.place.endswith("fedfsd.version")
    assert error.got == version


@pytest.mark.parametrize(("key", "value"), [("identity", "person"), ("origin", "found"), ("identity", "")])
def test_an_unknown_declaration_is_refused(tmp_path, key, value):
    error = refusal(written(tmp_path / "a.parquet", columns(["v"]), {f"fedfsd.{key}": value}))
    assert error.place.endswith(f"fedfsd.{key}")
    assert error.got == value
    assert " | " in error.expected


def test_a_table_that_declares_nothing_is_read_with_the_most_careful_values(tmp_path):
    (read,) = table.read(written(tmp_path / "a.parquet", columns(["v"])))
    assert (read.licence, read.identity, read.origin) == ("unstated", "recording", "recorded")


def test_a_vehicle_on_both_sides_of_the_split_is_refused(tmp_path):
    rows = columns(["v", "w", "v", "x"], test=[False, True, True, False])
    error = refusal(written(tmp_path / "a.parquet", rows))
    assert error.place.endswith("column test")
    assert error.got == "1 vehicles on both sides"
    with pytest.raises(DataError, match="both sides"):
        of_rows(rows, licence="CC0-1.0", identity="physical", origin="recorded")


def test_a_table_without_a_row_is_refused_by_the_name_of_its_file(tmp_path):
    written(tmp_path / "CN.parquet", columns(["v"]))
    written(tmp_path / "US.parquet", {name: values[:0] for name, values in columns(["v"]).items()})
    read = table.read(tmp_path)
    with pytest.raises(DataError, match="no row") as caught:
        table.demand_sound(read)
    assert caught.value.place == str(tmp_path / "US.parquet")


FAULTS = {
    "no vehicle": {"vehicle": None},
    "no region": {"region": None},
    "no recording": {"recording": None},
    "no side": {"test": None},
    "text for a number": {"x": "N/A"},
    "a long whole number": {"t": 2**24 + 1},
    "text that is not UTF-8": {"vehicle": b"\xff"},
    "other text that is not UTF-8": {"type": b"\xff"},
    "infinite": {"x": float("inf")},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_one_row_holds_never_stops_the_reading_and_changes_no_other_row(tmp_path, fault):
    ((name, value),) = FAULTS[fault].items()
    usual = columns(["v", "w", "w"])
    ordinary = [True if name == "test" else "k" if name in table.TEXT_COLUMNS else 1.5] * 3
    kinds = {str: pa.string(), bool: pa.bool_(), float: pa.float64()}
    kind = kinds[type(ordinary[0])]
    if isinstance(value, str):
        ordinary, kind = [str(one) for one in ordinary], pa.string()
    if isinstance(value, int) and not isinstance(value, bool):
        ordinary, kind = [1, 1, 1], pa.int64()
    if isinstance(value, bytes):
        raw = pa.array([value, *(one.encode() for one in ordinary[1:])], pa.binary())
        spoilt = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    else:
        spoilt = pa.array([value, *ordinary[1:]], kind)
    (sound,) = table.read(written(tmp_path / "a.parquet", usual | {name: pa.array(ordinary, kind)}))
    (read,) = table.read(written(tmp_path / "b.parquet", usual | {name: spoilt}))
    assert read.rows.slice(read.rows.num_rows - 2).equals(sound.rows.slice(1))
    assert all(one.count == 1 for one in read.faults)


def test_a_vehicle_on_both_sides_is_left_out_of_all_files_and_nobody_else(tmp_path):
    written(tmp_path / "a.parquet", columns(["v", "w"], test=[False, True]))
    written(tmp_path / "b.parquet", columns(["v", "x"], test=[True, False]))
    one, other = table.read(tmp_path)
    assert [*one.text("vehicle"), *other.text("vehicle")] == ["w", "x"]
    assert [[fault.count for fault in each.faults] for each in (one, other)] == [[1], [1]]
    with pytest.raises(DataError, match="1 vehicles on both sides"):
        table.demand_sound([one, other])


@pytest.mark.parametrize(
    "content", [b"", b"t,x,y\n0,1,2\n", b"PAR1" + bytes(40), b"PAR1" + bytes(40) + b"PAR1"]
)
def test_what_is_not_parquet_is_refused(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert refusal(path).got == "not a readable Parquet file"


def test_a_truncated_table_is_refused(tmp_path):
    path = written(tmp_path / "a.parquet", columns(["v"] * 100))
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path).got == "not a readable Parquet file"


def test_nothing_there_is_refused(tmp_path):
    assert refusal(tmp_path).got == "no *.parquet file"
    (tmp_path / "notes.txt").write_text("no table")
    assert refusal(tmp_path).got == "no *.parquet file"
    assert refusal(tmp_path / "gone.parquet").got == "no such file"


def test_a_folder_is_read_in_name_order(tmp_path):
    for name in ("b", "a", "c"):
        written(tmp_path / f"{name}.parquet", columns(["v"], region=[name.upper()]))
    assert [read.regions for read in table.read(tmp_path)] == [("A",), ("B",), ("C",)]


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
number = st.floats(width=32)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(text, text, number, number), min_size=0, max_size=12),
    st.sampled_from(["physical", "recording"]),
    st.sampled_from(["recorded", "published", "synthetic"]),
    text,
)
def test_a_table_survives_the_round_trip(tmp_path_factory, rows, identity, origin, licence):
    vehicles = [row[0] for row in rows]
    values = columns(
        vehicles,
        recording=pa.array([row[1] for row in rows], pa.string()),
        vehicle=pa.array(vehicles, pa.string()),
        x=np.array([row[2] for row in rows], np.float32),
        t=np.array([row[3] for row in rows], np.float32),
        city=pa.array(["Genève"] * len(rows), pa.string()),
        test=pa.array([table.split_is_test(vehicle) for vehicle in vehicles], pa.bool_()),
    )
    values |= {name: pa.array(["s"] * len(rows), pa.string()) for name in ("region", "source", "type")}
    before = of_rows(values, licence=licence, identity=identity, origin=origin)
    path = tmp_path_factory.mktemp("round") / "a.parquet"
    table.write(before, path)
    (after,) = table.read(path)
    assert (after.licence, after.identity, after.origin) == (licence, identity, origin)
    assert after.rows.column_names == before.rows.column_names
    assert "city" in after.rows.column_names
    assert "country" not in after.rows.column_names
    for name in before.rows.column_names:
        assert after.rows[name].type == table.SCHEMA.field(name).type
        one, other = (rows[name].to_numpy(zero_copy_only=False) for rows in (before.rows, after.rows))
        np.testing.assert_array_equal(one, other)


def test_columns_of_kindred_types_are_brought_into_the_schema(tmp_path):
    rows = columns(
        ["v", "v"],
        t=np.array([0.0, 0.5]),
        hz=[10, 10],
        region=pa.array(["EU", "EU"]).dictionary_encode(),
        source=pa.array(["s", "s"], pa.large_string()),
        remark=["not of the format", ""],
    )
    (read,) = table.read(written(tmp_path / "a.parquet", rows))
    assert {field.name: field.type for field in read.rows.schema} == {
        field.name: field.type for field in table.SCHEMA if field.name not in table.OPTIONAL_COLUMNS
    }


def test_writing_replaces_the_table_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.parquet"
    first = of_rows(columns(["v"]), licence="CC0-1.0", identity="physical", origin="recorded")
    table.write(first, path)
    bytes_before = path.read_bytes()
    broken = Table(first.rows.drop_columns(["heading"]), "CC0-1.0", "physical", "recorded")
    with pytest.raises(DataError, match="heading"):
        table.write(broken, path)
    assert path.read_bytes() == bytes_before
    # A disk that fails while the bytes are written: here a folder stands where the part file goes.
    (tmp_path / "a.parquet.part").mkdir()
    with pytest.raises(OSError, match=r"a\.parquet\.part"):
        table.write(first, path)
    assert path.read_bytes() == bytes_before


def test_writing_leaves_one_file(tmp_path):
    drive = of_rows(columns(["v"]), licence="CC0-1.0", identity="physical", origin="recorded")
    for _ in range(2):
        table.write(drive, tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_the_fixed_split_goes_by_vehicle_key_alone():
    keys = [f"source/{number}" for number in range(4000)]
    share = np.mean([table.split_is_test(key) for key in keys])
    assert 0.28 < share < 0.32
    values = columns(["v7", "v7", "v8"], test=None)
    drawn = of_rows(values, licence="CC0-1.0", identity="physical", origin="recorded")
    assert drawn.test.tolist() == [table.split_is_test(key) for key in ("v7", "v7", "v8")]


def test_a_region_keeps_its_rows_and_what_they_declare():
    rows = columns(["a", "b", "c"], region=["EU", "US", "EU"])
    both = of_rows(rows, licence="CC0-1.0", identity="physical", origin="published")
    other = of_rows(columns(["d"]), licence="MIT", identity="recording", origin="recorded")
    first, second = table.in_region([both, other], "EU")
    assert first.text("vehicle").tolist() == ["a", "c"]
    assert (first.licence, first.origin, second.licence) == ("CC0-1.0", "published", "MIT")
    assert [part.text("vehicle").tolist() for part in table.in_region([both, other], "US")] == [["b"]]
    assert table.in_region([both, other], "SG") == ()
