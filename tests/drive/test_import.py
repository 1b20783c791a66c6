"""What real files get wrong, kind by kind: read all the same, or one error that says what and where."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.drive import table
from fedfsd.drive.check import check
from fedfsd.drive.reader import Drive, Options, import_drives
from fedfsd.drive.reader import Reader as DriveReader
from fedfsd.drive.reader.drive import UnfitError, drive
from fedfsd.drive.reader.spool import content
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}
HEADER = "track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy,psi_rad,length,width"


def rows(
    *, cars: int = 3, samples: int = 30, step_ms: float = 100, start: float = 100, kind="car"
) -> list[str]:
    """Cars that drive at 5, 6, 7 ... m/s along x, each on a lane of its own."""
    return [
        f"{car},{n},{start + n * step_ms:.3f},{kind},{n * step_ms / 1000 * (5 + car):.3f},{4.5 * car},"
        f"{5 + car}.0,0.0,0.0,4.{car},1.{7 + car}"
        for car in range(1, cars + 1)
        for n in range(samples)
    ]


def csv(
    folder: Path, lines: list[str], *, header: str = HEADER, name: str = "vehicle_tracks_001.csv"
) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder / name


def read(path: Path, **options) -> table.Table:
    return import_drives(path, format="interaction", **FACTS, **options)


def outcome(path: Path, **options) -> tuple[table.Table | None, DataError | None]:
    try:
        return read(path, **options), None
    except DataError as error:
        return None, error


def plain(made: table.Table) -> dict[str, list]:
    """The rows without the recording's name, which is the folder's."""
    return made.rows.drop_columns(["recording", "vehicle", "test"]).to_pydict()


# --- times


@pytest.mark.parametrize("start", [0, 100, 1.718e12, 1.718e12 + 0.25, -5e11])
def test_times_start_at_zero_whatever_the_clock(tmp_path, start):
    made = read(csv(tmp_path, rows(start=start)))
    t = made.number("t")
    assert t.reshape(3, 30) == pytest.approx(np.tile(np.arange(30) / 10, (3, 1)), abs=1e-3)
    assert all(len(set(one)) == 30 for one in t.reshape(3, 30))


def test_the_start_is_subtracted_for_a_package_s_reader_too(monkeypatch, tmp_path):
    def own(path: Path, options: Options) -> list[Drive]:
        t = 1.7e9 + np.arange(50) * 0.1
        return [
            drive(path, options.recording, hz=10, vehicle=["a"] * 50, type=["car"] * 50, columns={"t": t}),
            # One that the package makes without ``drive``, as its fields say.
            Drive(
                "other", 10.0, np.array(["b"] * 50), np.array(["car"] * 50), _columns(t), np.zeros(50, bool)
            ),
        ]

    def _columns(t: np.ndarray) -> dict[str, np.ndarray]:
        return {name: t if name == "t" else np.zeros(50) for name in table.NUMBER_COLUMNS if name != "hz"}

    monkeypatch.setattr("fedfsd.drive.reader.resolve", lambda _: DriveReader(own, "*.own"))
    (tmp_path / "a.own").write_text("x")
    made = import_drives(tmp_path / "a.own", format="own", **FACTS)
    assert made.number("t").reshape(2, 50) == pytest.approx(np.tile(np.arange(50) / 10, (2, 1)), abs=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("start", "hz", "fine"), [(1.7e9, 10, False), (1.7e9, 1, False), (86_400, 10, True)])
def test_a_table_whose_times_collapse_is_refused(tmp_path, kind, start, hz, fine):
    columns = {name: np.zeros(20, np.float32) for name in table.NUMBER_COLUMNS}
    columns |= {name: ["a"] * 20 for name in table.TEXT_COLUMNS} | {"test": [False] * 20}
    columns |= {"t": (start + np.arange(20) / hz).astype(kind), "hz": np.full(20, float(hz))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    if fine:
        assert table.read(tmp_path / "a.parquet")[0].rows.num_rows == 20
        return
    (found,) = read_back = table.read(tmp_path / "a.parquet")
    assert (found.rows.num_rows, found.faults[0].name, found.faults[0].count) == (0, "coarse-time", 20)
    for refuse in (
        lambda: table.demand_sound(read_back),
        lambda: table.of_rows(columns, licence="CC0", identity="recording", origin="recorded"),
    ):
        with pytest.raises(DataError, match="column t: got times in 20 of 20 rows too large for float32"):
            refuse()
    assert {one.name for one in check(read_back)} == {"coarse-time"}


@pytest.mark.parametrize("digits", ["{:.6g}", "{:.9g}", "{:.10g}"])
def test_times_that_were_rounded_until_they_are_one_are_refused(tmp_path, digits):
    lines = []
    for line in rows(start=1.718e12, samples=60):
        cells = line.split(",")
        cells[2] = digits.format(float(cells[2]))
        lines.append(",".join(cells))
    with pytest.raises(DataError) as caught:
        read(csv(tmp_path, lines))
    assert "with all their digits" in caught.value.hint
    assert "delete" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("gap_s", [86_400 * 40, 1.7e9, -1.7e9])
def test_a_recording_by_two_clocks_or_of_many_days_is_cut_where_float32_ends(tmp_path, gap_s):
    later = [
        line.replace(f"{car},", f"{car + 5},", 1)
        for car, line in ((int(each[0]), each) for each in rows(start=100 + gap_s * 1000))
    ]
    made = read(csv(tmp_path, rows() + later))
    assert len(set(made.text("recording"))) == 2
    for key in set(made.text("vehicle")):
        t = np.sort(made.number("t")[made.text("vehicle") == key])
        assert np.diff(t) == pytest.approx(np.full(29, 0.1), abs=2e-3)


@pytest.mark.parametrize(
    ("factor", "said"), [(1e-3, "1,000 times too small"), (1e3, "1,000 times too large"), (1e6, "too large")]
)
@pytest.mark.parametrize("step_ms", [40, 100, 500])
def test_times_in_another_unit_are_named(tmp_path, factor, said, step_ms):
    path = csv(tmp_path, rows(step_ms=step_ms * factor, start=0))
    with pytest.raises(DataError, match=f"column timestamp_ms: .*{said}") as caught:
        read(path)
    assert "convert" in caught.value.hint


# --- the shape of the file

SHAPES = {
    "semicolon": lambda text: text.replace(",", ";").encode(),
    "tab": lambda text: text.replace(",", "\t").encode(),
    "bar": lambda text: text.replace(",", "|").encode(),
    "decimal-comma": lambda text: text.replace(",", ";").replace(".", ",").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "bom": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "zstd": lambda text: pa.compress(text.encode(), codec="zstd", asbytes=True),
    "gzip-semicolon-crlf": lambda text: gzip.compress(text.replace(",", ";").replace("\n", "\r\n").encode()),
    "no-last-line-end": lambda text: text.rstrip("\n").encode(),
    "comment": lambda text: f"# exported by hand\n\n{text}".encode(),
    "excel": lambda text: f"sep=;\n{text.replace(',', ';')}".encode(),
    "title": lambda text: f"Export of site A\nby hand, 1 May\n\n{text}".encode(),
    "blank-lines": lambda text: text.replace("\n2,", "\n\n2,").encode(),
    "upper-case-header": lambda text: text.replace(HEADER, HEADER.upper()).encode(),
    "spaces": lambda text: text.replace(",", " , ").encode(),
    "capitals": lambda text: text.replace("car", " Car ").encode(),
    "quotes": lambda text: text.replace("car", '"car"').encode(),
    "another-column-in-latin-1": lambda text: (
        text.replace("width\n", "width,note\n")
        .replace("1.8\n", "1.8,é\n")
        .replace("1.9\n", "1.9,\n")
        .replace("1.10\n", "1.10,\n")
        .encode("latin-1")
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_is_read_in_any_usual_shape(tmp_path, shape):
    expected = plain(read(csv(tmp_path / "plain", rows())))
    text = (tmp_path / "plain" / "vehicle_tracks_001.csv").read_text()
    changed = SHAPES[shape](text)
    assert shape == "plain" or changed != text.encode()
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "vehicle_tracks_001.csv").write_bytes(changed)
    made = read(tmp_path / "it")
    assert plain(made) == expected
    assert made.left_out == ()


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst", "lz4"])
def test_compressed_files_are_found_in_a_folder_under_their_own_name(tmp_path, ending):
    path = csv(tmp_path / "site", rows())
    whole = read(tmp_path / "site")
    text = path.read_bytes()
    path.unlink()
    with pa.CompressedOutputStream(
        str(path) + f".{ending}", {"zst": "zstd", "gz": "gzip"}.get(ending, ending)
    ) as stream:
        stream.write(text)
    assert read(tmp_path / "site").rows == whole.rows


def zipped(text: str) -> bytes:
    import io

    with zipfile.ZipFile(found := io.BytesIO(), "w") as archive:
        archive.writestr("vehicle_tracks_001.csv", text)
    return found.getvalue()


UNREADABLE = {
    "zip": (zipped, "a ZIP archive"),
    "xz": (lambda text: lzma.compress(text.encode()), "an xz archive"),
    "gzip-cut": (lambda text: gzip.compress(text.encode())[:-20], "a gzip file that is cut short"),
    "gzip-in-gzip": (
        lambda text: gzip.compress(gzip.compress(text.encode())),
        "a gzip file in a compressed file",
    ),
    "spaces-between": (lambda text: text.replace(",", " ").encode(), "11 cells separated by spaces"),
    "colons": (lambda text: text.replace(",", ":").encode(), "11 cells separated by colons"),
    "utf-16-without-mark": (lambda text: text.encode("utf-16-le"), "without a byte order mark"),
    "utf-32": (lambda text: text.encode("utf-32"), "bytes that are no text|without a byte order mark"),
    "types": (lambda text: text.replace("car", "suv").encode(), r"no vehicle track \(but type suv\)"),
    "xml": (lambda _: b"<?xml version='1.0'?><commonRoad/>", "looks like CommonRoad XML"),
    "pickle": (lambda _: pickle.dumps([1]), "looks like a pickle"),
    "json": (lambda _: b'{"a": 1}', "looks like JSON"),
    "levelx": (lambda _: b"frame,id,x,y,xVelocity,yVelocity\n1,1,0,0,0,0\n", "looks like CSV of levelXdata"),
    "apolloscape": (lambda _: b"1 1 1 1 1 1 1 1 1 1\n", "looks like ApolloScape"),
    "column": (
        lambda text: text.replace("agent_type", "kind"),
        "no column agent_type in a header of 11 names",
    ),
    "columns;": (lambda text: text.replace("agent_type", "kind").replace(",", ";"), "by semicolons"),
    "no-header": (lambda text: text.split("\n", 1)[1], "values in the first line, 11 separated by commas"),
    "twice": (lambda text: text.replace("frame_id", "X"), "column x twice"),
    "latin-1": (
        lambda text: text.replace("car", "vélo").encode("latin-1"),
        "line 2: got bytes that are not UTF-8",
    ),
    "cut": (lambda text: text[: text.rindex(",")], "line 91: got 10 cells, expected 11"),
    "ragged": (lambda text: text.replace("\n2,3,", "\n2,3,9,9,"), "line 35: got 13 cells, expected 11"),
    "empty-key": (
        lambda text: text.replace("\n2,3,", "\n,3,"),
        "line 35, column track_id: got an empty cell",
    ),
    "cell": (
        lambda text: text.replace("\n2,3,400", "\n2,3,soon"),
        "line 35, column timestamp_ms: got text that",
    ),
    "after-blank-lines": (
        lambda text: text.replace("\n2,3,400.000", "\n\n\n2,3,N/A"),
        "line 37, .*got 'N/A'",
    ),
    "thousands": (lambda text: text.replace(",", ";").replace(";4.5;", ";1,234.5;"), "line 2, column y"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_one_error_with_its_place(tmp_path, case):
    change, said = UNREADABLE[case]
    path = csv(tmp_path, rows())
    changed = change(path.read_text())
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert caught.value.place.startswith(str(path))
    assert caught.value.hint
    assert "fetch" not in str(caught.value)


def test_an_archive_that_unpacks_to_more_than_a_file_may_have_is_refused_early(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2 * 2**20)))
    with pytest.raises(DataError, match="more than 1048576 bytes"):
        content(tmp_path / "a.gz", limit=2**20)


@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4
    ),
    packed=st.booleans(),
    skip=st.booleans(),
)
@example(changes=[(0, 40, b"")], packed=False, skip=False)
@example(changes=[(0, 0, b'"')], packed=False, skip=False)
@example(changes=[(95, 0, b'"')], packed=False, skip=True)
@example(changes=[(5, 3, b"\x00\xff")], packed=True, skip=True)
def test_any_damage_is_a_table_or_an_error_with_a_place(tmp_path, changes, packed, skip):
    """Bytes are replaced anywhere: never a bug, and nothing that is unfit is left out unasked."""
    data = "\n".join([HEADER, *rows(samples=8), ""]).encode()
    for at, gone, new in changes:
        at %= len(data) + 1
        data = data[:at] + new + data[at + gone :]
    path = tmp_path / "vehicle_tracks_001.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    made, error = outcome(path, skip_unfit=skip)
    if error is not None:
        assert str(path) in str(error)
        assert error.hint
    else:
        assert made.rows.num_rows
        assert skip or not {each.why for each in made.left_out} & {"unfit row", "row of another width"}


# --- what does not fit


def test_every_column_with_a_bad_cell_is_named_at_once_with_how_many(tmp_path):
    lines = rows()
    for number in (3, 40, 41):
        lines[number] = lines[number].replace(",0.0,0.0,", ",NA,0.0,")
    lines[50] = lines[50].replace(",car,", ",car,left")
    path = csv(tmp_path, lines)
    with pytest.raises(UnfitError) as caught:
        read(path)
    assert [error.place for error in caught.value.errors] == [
        f"{path}: line 52, column x",
        f"{path}: line 5, column vy",
    ]
    assert caught.value.errors[1].got == "'NA', and 2 more cells of this column"
    assert len(caught.value.document()["unfit"]) == 2
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    made = read(path, skip_unfit=True)
    assert made.rows.num_rows == 86
    assert made.left_out == (LeftOut("unfit row", 4, 2),)


def test_unfit_files_are_listed_at_once_and_skipped_on_request(tmp_path):
    for number in range(5):
        csv(tmp_path / f"s{number}", rows(cars=number + 1))
    csv(tmp_path / "s1", [])
    csv(tmp_path / "s3", ["1"])
    with pytest.raises(DataError, match=r"2 of 5 files: .*s1/.*s3/") as caught:
        read(tmp_path)
    assert "--skip-unfit" in caught.value.hint
    made = read(tmp_path, skip_unfit=True)
    assert len(set(made.text("recording"))) == 3
    assert [(each.files, each.why.split(":")[0]) for each in made.left_out] == [
        (1, "unfit file vehicle_tracks_001.csv"),
        (1, "unfit file vehicle_tracks_001.csv"),
    ]
    # The counts stay with the table.
    table.write(made, tmp_path / "a.parquet")
    assert table.read(tmp_path / "a.parquet")[0].left_out == made.left_out
    (again,) = table.in_region(table.read(tmp_path / "a.parquet"), "EU")
    assert again.left_out == made.left_out


def state(tag: str, n: int, x: float) -> str:
    return (
        f"<{tag}><position><point><x>{x}</x><y>0</y></point></position><orientation><exact>0</exact></orientation>"
        f"<time><exact>{n}</exact></time><velocity><exact>8</exact></velocity></{tag}>"
    )


def scenario(path: Path, *obstacles: tuple[str, str]) -> Path:
    """Obstacles by type, with the states in their trajectory."""
    made = "".join(
        f'<dynamicObstacle id="{30 + number}"><type>{kind}</type><shape><rectangle><length>4.5</length>'
        f"<width>1.8</width></rectangle></shape>{states}</dynamicObstacle>"
        for number, (kind, states) in enumerate(obstacles)
    )
    head = f'commonRoadVersion="2020a" timeStepSize="0.1" benchmarkID="ZAM_A-{path.stem}_1_T-1"'
    path.write_text(f"<commonRoad {head}>{made}</commonRoad>")
    return path


DRIVE = state("initialState", 0, 0.0) + "".join(state("state", n, 0.8 * n) for n in range(1, 30)).join(
    ("<trajectory>", "</trajectory>")
)
AREA = DRIVE.replace("<point>", "<circle>").replace("</point>", "</circle>")


def test_every_unfit_obstacle_of_every_scenario_is_named_at_once(tmp_path):
    scenario(tmp_path / "1.xml", ("car", AREA), ("car", DRIVE), ("truck", AREA))
    scenario(tmp_path / "2.xml", ("car", DRIVE))
    scenario(tmp_path / "3.xml", ("car", ""))
    with pytest.raises(
        UnfitError, match=r"2 of 3 files: .*obstacle 30: .*obstacle 32: .*no vehicle track"
    ) as caught:
        import_drives(tmp_path, format="commonroad", **FACTS)
    assert len(caught.value.errors) == 3
    made = import_drives(tmp_path, format="commonroad", skip_unfit=True, **FACTS)
    assert set(made.text("recording")) == {"ZAM_A-2_1_T-1"}
    assert [each.files for each in made.left_out] == [1, 1]


def test_an_initial_state_that_the_trajectory_repeats_is_one_row(tmp_path):
    again = DRIVE.replace("<trajectory>", "<trajectory>" + state("state", 0, 0.004))
    scenario(tmp_path / "1.xml", ("car", again), ("bicycle", DRIVE), ("pedestrian", DRIVE))
    made = import_drives(tmp_path, format="commonroad", **FACTS)
    assert made.rows.num_rows == 30
    assert set(made.left_out) == {
        LeftOut("repeated row", 1, 1),
        LeftOut("type bicycle", 30, 1),
        LeftOut("type pedestrian", 30, 1),
    }


def test_nothing_is_imported_where_nothing_is_fit_or_a_path_is_wrong(tmp_path):
    csv(tmp_path / "a", [])
    with pytest.raises(DataError):
        read(tmp_path / "a", skip_unfit=True)
    csv(tmp_path / "b", rows())
    with pytest.raises(DataError, match="no readable file"):
        import_drives([tmp_path / "b", tmp_path / "c"], format="interaction", skip_unfit=True, **FACTS)


def test_a_table_is_written_in_the_oldest_format_that_can_hold_it(tmp_path):
    for kind, version in (("car", b"1"), (" Pedestrian/bicycle ", b"2")):
        made = read(
            csv(tmp_path, [*rows(), *(row.replace("1,", "9,", 1) for row in rows(cars=1, kind=kind))])
        )
        table.write(made, tmp_path / "a.parquet")
        assert pq.read_schema(tmp_path / "a.parquet").metadata[b"fedfsd.version"] == version
    assert made.left_out == (LeftOut("type pedestrian/bicycle", 30, 1),)


@pytest.mark.parametrize("text", ["no", "{}", "[1]", '[{"why": 1, "rows": 1, "vehicles": 1, "files": 0}]'])
def test_counts_that_are_none_are_refused(tmp_path, text):
    made = read(csv(tmp_path, rows()))
    metadata = {"fedfsd.version": "2", "fedfsd.left_out": text}
    pq.write_table(made.rows.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"fedfsd\.left_out"):
        table.read(tmp_path / "a.parquet")


def test_types_that_are_left_out_are_counted_by_rows_and_vehicles(tmp_path):
    lines = [
        row.replace(f"{car},", f"{kind}{car},", 1).replace("car", kind)
        for kind in ("car", "SUV", "taxi", "")
        for car, row in ((int(row.split(",")[0]), row) for row in rows(cars=2, samples=20))
    ]
    made = read(csv(tmp_path, lines))
    assert len(set(made.text("vehicle"))) == 2
    assert set(made.left_out) == {
        LeftOut("type suv", 40, 2),
        LeftOut("type taxi", 40, 2),
        LeftOut("type (empty)", 40, 2),
    }
    with pytest.raises(DataError, match=r"no vehicle .*type suv"):
        read(csv(tmp_path, rows(kind="suv")))


# --- names, copies, rates


def test_the_folder_that_was_given_stays_in_the_key(tmp_path):
    named = {"format": "interaction", "source": "interaction", **FACTS}
    found = set()
    for site in ("north", "south"):
        path = csv(tmp_path / site, rows())
        for chosen in (path, path.parent, [path]):
            keys = set(import_drives(chosen, **named).text("vehicle"))
            assert keys == {f"interaction/{site}/vehicle_tracks_001/{car}" for car in (1, 2, 3)}
        found |= keys
    assert len(found) == 6
    both = [tmp_path / "north", tmp_path / "south"]
    assert set(import_drives(both, **named).text("vehicle")) == found
    # Folders of the same name are told apart by what is above them.
    csv(tmp_path / "east" / "north", rows())
    made = import_drives([tmp_path / "north", tmp_path / "east" / "north"], **named)
    assert len(set(made.text("vehicle"))) == 6


def test_the_same_names_at_another_site_are_other_vehicles_unless_the_data_set_is_named(tmp_path):
    sites = []
    for site in ("north", "south", "again"):
        path = csv(tmp_path / site / "data", rows(cars=2 if site == "south" else 3))
        sites.append([set(read(path.parent, source=name).text("vehicle")) for name in (None, "ours")])
    (north, ours), (south, theirs), (again, _) = sites
    assert not north & south
    # One recording has one key, wherever it is; who names a data set answers for its names.
    assert north == again
    assert theirs < ours
    packed = tmp_path / "packed" / "data" / "vehicle_tracks_001.csv"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress((tmp_path / "north" / "data" / packed.name).read_bytes()))
    assert set(read(packed).text("vehicle")) == north


@pytest.mark.parametrize("apart", [0.0, 0.01, 1.0])
def test_a_row_that_repeats_another_is_dropped_and_counted(tmp_path, apart):
    lines = rows()
    again = lines[40].split(",")
    again[4] = str(float(again[4]) + apart)
    again[6] = ""  # the row that says more is kept
    made = read(csv(tmp_path, [",".join(again), *lines]))
    dropped = apart < 0.05
    assert made.rows.num_rows == 90 + (not dropped)
    assert made.left_out == ((LeftOut("repeated row", 1, 1),) if dropped else ())
    if dropped:
        assert np.isfinite(made.number("vx")).all()


def test_each_track_has_the_rate_that_it_keeps(tmp_path):
    fast = rows(cars=2, samples=60, step_ms=40)
    slow = [row.replace("1,", "8,", 1) for row in rows(cars=1, samples=30, step_ms=100)]
    short = [row.replace("1,", "9,", 1) for row in rows(cars=1, samples=4, step_ms=100)]
    # Frames are missing here and there: no rate of its own.
    draw = np.random.default_rng(1)
    holes = [row.replace("2,", "7,", 1) for row in fast[60:] if draw.random() < 0.6]
    made = read(csv(tmp_path, [*fast, *slow, *short, *holes]))
    vehicle = np.array([key.rsplit("/")[-1] for key in made.text("vehicle")])
    hz = made.number("hz")
    assert {name: set(hz[vehicle == name]) for name in np.unique(vehicle)} == {
        "1": {25.0},
        "2": {25.0},
        "7": {25.0},
        "8": {10.0},
        "9": {10.0},
    }


# --- recordings cut into overlapping pieces


def cut(
    draw: np.random.Generator, *, pieces: int, every: int, size: int = 40, cars: int = 6
) -> tuple[list[str], dict[tuple[int, int], int]]:
    """Rows of overlapping cases with numbers and times of their own, and which car each (case, number) is."""
    samples = every * (pieces - 1) + size
    n = np.arange(samples)
    lines, truth = [], {}
    for piece in draw.permutation(pieces):
        numbers = draw.permutation(cars) + 1
        for car in range(cars):
            speed = 0.0 if car == 0 else 4 + 1.3 * car  # the first one is parked
            truth[int(piece), int(numbers[car])] = car
            x = 10 * car + speed * n / 10 + 0.4 * np.sin(n / 9 + car) * (car > 0)
            y = 5 * car + 0.3 * np.cos(n / 11 + car) * (car > 0)
            for frame in range(size):
                at = piece * every + frame
                lines.append(
                    f"{numbers[car]},{frame + 1},{100 * (frame + 1)},car,{x[at]:.3f},{y[at]:.3f},"
                    f"{speed:.3f},0.0,0.0,4.5,1.8,{piece}.0"
                )
    return lines, truth


@pytest.mark.parametrize("seed", range(4))
def test_cuts_of_one_recording_are_joined_across_files(tmp_path, seed):
    draw = np.random.default_rng(seed)
    lines, truth = cut(draw, pieces=7, every=13)
    for number, name in enumerate(("train/DR_USA_X_train.csv", "val/DR_USA_X_val.csv")):
        chosen = [line for line in lines if (float(line.rsplit(",")[-1]) % 3 == 1) == bool(number)]
        csv((tmp_path / name).parent, chosen, header=HEADER + ",case_id", name=name.split("/")[1])
    # Another site has coordinates of its own, which may be the same.
    other, _ = cut(np.random.default_rng(seed + 9), pieces=2, every=30)
    csv(tmp_path / "train", other, header=HEADER + ",case_id", name="DR_DEU_Y_train.csv")
    made = read(tmp_path)
    here = np.char.find(made.text("recording").astype(str), "USA") >= 0
    assert len(set(made.text("recording"))) == 2
    assert len(set(made.text("vehicle"))) == 12
    # Every car is one track of 118 samples at its own speed, the parked one too.
    for key in set(made.text("vehicle")[here]):
        mine = made.text("vehicle") == key
        t = np.sort(made.number("t")[mine])
        assert t == pytest.approx(np.arange(118) / 10, abs=1e-4)
    left = {each.why: each.rows for each in made.left_out}
    assert left == {"repeated row": 7 * 40 * 6 - 118 * 6 + 2 * 40 * 6 - 70 * 6}
    assert len(truth) == 42


def test_cuts_that_do_not_overlap_stay_apart(tmp_path):
    lines, _ = cut(np.random.default_rng(0), pieces=3, every=40)
    made = read(csv(tmp_path, lines, header=HEADER + ",case_id"))
    # The parked car alone cannot tell how two cuts lie in time.
    assert len(set(made.text("recording"))) == 3
    assert len(set(made.text("vehicle"))) == 18
    assert made.left_out == ()
