"""What holds for every reader: a new one inherits these tests with its writer in ``written.WRITERS``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import written

from fedfsd.drive import table
from fedfsd.drive.reader import (
    READERS,
    Facts,
    Options,
    gather,
    import_drives,
    import_to,
    nuplan,
    spool,
)
from fedfsd.drive.reader.mapping import Mapping
from fedfsd.errors import DataError

FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}
MAPPING = Mapping.model_validate(written.COLUMNS)
ALL = sorted(READERS)
NUMBERS = table.NUMBER_COLUMNS


def read(format: str, path: Path, **options) -> table.Table:
    mapping = MAPPING if format == "columns" else None
    return import_drives(path, format=format, mapping=mapping, **(FACTS | {"source": format} | options))


def write(format: str, output: Path, path: Path, *, skip_unfit: bool = False):
    mapping = MAPPING if format == "columns" else None
    facts = Facts("EU", "CC0", "recording", "published", format)
    options = Options("", scratch=output.parent)
    return import_to(
        output, path, format=format, facts=facts, options=options, skip_unfit=skip_unfit, mapping=mapping
    )


def test_every_reader_has_a_writer():
    assert sorted(written.WRITERS) == ALL


@pytest.mark.parametrize("format", ALL)
def test_a_scene_is_read_as_it_was_written(tmp_path, format):
    wrote = written.WRITERS[format](tmp_path, "a")
    made = read(format, tmp_path, source="mine")
    keys = set(made.text("vehicle"))
    assert all(key.startswith("mine/") for key in keys)
    assert len(keys) == wrote.cars + wrote.ego
    assert {key.endswith("/ego") for key in keys} == ({True} if wrote.ego else set()) | (
        {False} if wrote.cars else set()
    )
    for key in keys:
        mine = made.text("vehicle") == key
        order = np.argsort(made.number("t")[mine])
        t, x, y, vx, vy, hz = (made.number(name)[mine][order] for name in ("t", "x", "y", "vx", "vy", "hz"))
        # The recording's start is subtracted before anything is rounded.
        assert t == pytest.approx(np.arange(written.N) / wrote.hz, abs=1e-3)
        assert set(hz) == {wrote.hz}
        assert np.diff(x) == pytest.approx(np.diff(t) * vx[1:], abs=2e-3)
        assert np.diff(y) == pytest.approx(np.diff(t) * vy[1:], abs=2e-3)
        assert np.hypot(vx, vy) == pytest.approx(np.hypot(vx, vy)[0], abs=1e-3)
        assert 2.9 < np.hypot(vx, vy)[0] < 6.1
    if wrote.left_out is None:
        assert made.left_out == ()
    else:
        (left,) = made.left_out
        assert (left.rows, left.vehicles) == wrote.left_out
        assert any(word in left.why for word in ("pedestrian", "person"))


@pytest.mark.parametrize("format", ALL)
def test_an_exact_copy_of_a_row_is_dropped_and_counted(tmp_path, format):
    wrote = written.WRITERS[format](tmp_path, "a", again=True)
    made = read(format, tmp_path)
    assert made.rows.num_rows == written.N * (wrote.cars + wrote.ego)
    repeated = {each.why: each.rows for each in made.left_out}.get("repeated row")
    assert repeated == (1 if wrote.repeats else None)


@pytest.mark.slow
@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "text", "gzip-cut"])
def test_a_damaged_file_among_good_ones_is_named_and_skipped_on_request(tmp_path, format, damage):
    import gzip

    good, bad = (written.WRITERS[format](tmp_path, name) for name in ("good", "bad"))
    whole = read(format, good.file)
    data = bad.file.read_bytes()
    bad.file.write_bytes(
        {
            "cut": data[: len(data) // 2 + 3],
            "empty": b"",
            "zeros": bytes(5000),
            "text": b"not a recording\n" * 300,
            "gzip-cut": gzip.compress(data)[:-9],
        }[damage]
    )
    output = tmp_path / "out" / "a.parquet"
    output.parent.mkdir()
    with pytest.raises(DataError) as caught:
        write(format, output, tmp_path)
    assert str(bad.file) in caught.value.place or str(bad.file) in str(caught.value)
    assert caught.value.got
    assert caught.value.hint
    assert list(output.parent.iterdir()) == []
    done = write(format, output, tmp_path, skip_unfit=True)
    assert any("unfit" in each.why or "another width" in each.why for each in done.left_out)
    (made,) = table.read(output)
    keys = set(whole.text("recording"))
    mine = np.isin(made.text("recording").astype(str), sorted(keys))
    assert mine.sum() == whole.rows.num_rows
    assert made.left_out == done.left_out
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("format", ALL)
def test_a_file_of_another_format_under_this_one_s_name_is_refused(tmp_path, format):
    for number, (other, make) in enumerate(written.WRITERS.items()):
        for place in ("theirs", "ours"):
            (tmp_path / f"{place}{number}").mkdir()
        theirs, ours = (
            make(tmp_path / f"theirs{number}", "a"),
            written.WRITERS[format](tmp_path / f"ours{number}", "a"),
        )
        if other == format:
            continue
        ours.file.write_bytes(theirs.file.read_bytes())
        with pytest.raises(DataError) as caught:
            read(format, ours.file)
        assert str(ours.file.parent) in caught.value.place, (format, other)
        assert caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("format", ALL)
def test_what_is_streamed_is_what_is_read_at_once(tmp_path, format, monkeypatch):
    for name in ("a", "b", "c"):
        written.WRITERS[format](tmp_path, name, again=True)
    whole = read(format, tmp_path)
    # A few rows at a time everywhere.
    monkeypatch.setattr(spool, "HELD", 1)
    monkeypatch.setattr(nuplan, "ROWS", 7)
    monkeypatch.setattr(gather, "BATCH_ROWS", 1)
    monkeypatch.setattr(gather, "GROUP_ROWS", 50)
    output = tmp_path / "out.parquet"
    done = write(format, output, tmp_path)
    (made,) = table.read(output)
    assert (done.rows, done.vehicles) == (whole.rows.num_rows, len(set(whole.text("vehicle"))))
    assert done.recordings == len(set(whole.text("recording"))) == 3
    assert done.left_out == whole.left_out
    order = [(name, "ascending") for name in ("recording", "vehicle", "t")]
    mine, theirs = made.rows.sort_by(order), whole.rows.sort_by(order)
    assert mine.schema.equals(theirs.schema)
    for name in mine.column_names:
        a, b = mine[name], theirs[name]
        assert np.array_equal(a, b, equal_nan=True) if name in NUMBERS else a.equals(b), name
    assert replace(made, rows=whole.rows, name="") == whole


@pytest.mark.parametrize("format", ALL)
def test_an_error_leaves_what_was_there(tmp_path, format):
    (tmp_path / "in").mkdir()
    wrote = written.WRITERS[format](tmp_path / "in", "a")
    output = tmp_path / "out.parquet"
    write(format, output, tmp_path / "in")
    before = output.read_bytes()
    wrote.file.write_bytes(b"")
    with pytest.raises(DataError):
        write(format, output, tmp_path / "in")
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.parquet"]


@pytest.mark.parametrize("format", ALL)
def test_every_format_says_what_it_is_and_where_it_comes_from(format):
    reader = READERS[format]
    assert reader.about
    assert reader.download
    assert reader.licence
