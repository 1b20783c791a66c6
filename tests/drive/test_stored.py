"""Tables read a piece, a region or some columns at a time: the same rows and counts as read whole."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import slow_table
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.drive import source, stored, table
from fedfsd.errors import DataError
from fedfsd.service import memory
from fedfsd.task.forecasting import window

REGIONS = ("EU", "US", "SG")


def spoilt(draw: np.random.Generator) -> pa.Table:
    """Rows as another program might write them: cells that are none or do not fit, vehicles on both sides."""
    count = int(draw.integers(0, 80))
    share = draw.choice([0, 0, 0.1])

    def holes(values: list) -> list:
        return [None if draw.random() < share else value for value in values]

    vehicles = [f"v{draw.integers(12)}" for _ in range(count)]
    regions = [REGIONS[int(key[1:]) % 3] for key in vehicles]
    columns: dict = {name: np.round(draw.normal(0, 50, count), 2) for name in table.NUMBER_COLUMNS}
    columns["hz"] = np.full(count, 10.0)
    columns["t"] = draw.choice([1.0, 3.0, 1e9], count, p=[0.6, 0.3, 0.1])
    columns |= {
        name: holes([f"{name}{draw.integers(3)}" for _ in range(count)]) for name in ("source", "type")
    }
    columns |= {"recording": holes([f"r{draw.integers(3)}" for _ in range(count)])}
    columns |= {
        "region": holes(sorted(regions) if draw.random() < 0.5 else regions),
        "vehicle": holes(vehicles),
    }
    columns["test"] = holes([int(key[1:]) % 2 == 0 or draw.random() < 0.02 for key in vehicles])
    if draw.random() < 0.3:
        columns["x"] = [draw.choice(["1.5", "far", ""]) if draw.random() < 0.2 else "2" for _ in range(count)]
    if draw.random() < 0.3:
        raw = pa.array([b"\xff" if draw.random() < 0.1 else b"k" for _ in range(count)], pa.binary())
        columns["type"] = pa.Array.from_buffers(pa.string(), count, raw.buffers())
    if draw.random() < 0.3:
        columns["region"] = pa.array(columns["region"], pa.string()).dictionary_encode()
    if draw.random() < 0.5:
        columns["city"] = holes(["k"] * count)
    kinds = dict.fromkeys(("region", "source", "recording", "type", "city"), pa.string()) | {
        "test": pa.bool_()
    }
    return pa.table(
        {name: pa.array(v, kinds.get(name)) if isinstance(v, list) else v for name, v in columns.items()}
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(25))
@given(st.integers(0, 2**32), st.sampled_from([1, 7, 1000]), st.sampled_from([1, 5, 1000]))
def test_pieces_are_the_whole(tmp_path_factory, seed, piece, group):
    draw, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("tables")
    for number in range(draw.integers(1, 3)):
        pq.write_table(spoilt(draw), folder / f"{number}.parquet", row_group_size=group)
    expected = slow_table.read(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "PIECE", piece)
        found = table.read(folder)
        narrow = {region: source.region_tables(str(folder), region, window.COLUMNS) for region in REGIONS}
    assert [one.faults for one in found] == [one.faults for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.rows.equals(other.rows)
    for region, tables in narrow.items():
        assert [one.faults for one in tables] == [one.faults for one in expected]
        for one, other in zip(tables, expected, strict=True):
            mine = table.in_region([other], region)
            rows = mine[0].rows if mine else other.rows.slice(0, 0)
            columns = [name for name in rows.column_names if name in window.COLUMNS]
            assert one.rows.to_pydict() == rows.select(columns).to_pydict()


def test_a_region_reads_no_row_group_without_its_rows(tmp_path, monkeypatch):
    columns = {name: np.zeros(6, np.float32) for name in table.NUMBER_COLUMNS}
    columns |= {name: ["k"] * 6 for name in table.TEXT_COLUMNS}
    columns |= {"region": ["EU", "EU", "US", "US", "US", "EU"], "test": [False] * 6}
    columns |= {"vehicle": list("abcdef"), "x": np.arange(6)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    read: list[tuple] = []
    batches = stored._batches
    monkeypatch.setattr(
        stored,
        "_batches",
        lambda file, group, names: read.append((group, names)) or batches(file, group, names),
    )
    (found,) = source.region_tables(str(tmp_path), "US", window.COLUMNS)
    assert found.rows["x"].to_pylist() == [2, 3, 4]
    assert [group for group, names in read if "x" in names] == [1, 2]
    assert not any("heading" in names for _, names in read), "what no window needs is not read"


def test_a_table_that_does_not_fit_is_one_error(tmp_path, monkeypatch):
    drive = {name: np.zeros(50_000, np.float32) for name in table.NUMBER_COLUMNS}
    drive |= {name: pa.array(["k"] * 50_000) for name in table.TEXT_COLUMNS} | {"test": [False] * 50_000}
    pq.write_table(pa.table(drive), tmp_path / "a.parquet")
    assert sum(one.num_rows for one in table.read(tmp_path)) == 50_000
    monkeypatch.setattr(stored.memory, "free", lambda: 4e6)
    with pytest.raises(DataError, match="50000 rows, about") as caught:
        table.read(tmp_path)
    assert "split the table" in caught.value.hint
    # Some columns of it do.
    assert source.region_tables(str(tmp_path), "k", window.COLUMNS)[0].num_rows == 50_000
    assert [one.num_rows for one in source.looked(str(tmp_path))] == [50_000]


def test_the_memory_that_is_free_is_the_container_s_where_it_has_less(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n")
    assert memory.free(tmp_path, tmp_path) == 2_048_000
    for name, text in {"max": "max", "current": "1000", "stat": "anon 5\ninactive_file 300\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free(tmp_path, tmp_path) == 2_048_000
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.free(tmp_path, tmp_path) == 4300
    assert memory.free(tmp_path / "none", tmp_path / "none") == float("inf")
