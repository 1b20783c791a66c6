"""Any table by a mapping: the shipped ones on files written as their sources describe, and one of our own."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fedfsd.drive.reader import columns, import_drives, mapping
from fedfsd.drive.reader.mapping import Mapping
from fedfsd.errors import ConfigError, DataError, UsageError

FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}
N = 40
LEVELX_META = "frameRate,locationId\n25,1\n"


def read(path: Path, source: str | Mapping, **options):
    found = source if isinstance(source, Mapping) else mapping.read(source)
    return import_drives(path, format="columns", mapping=found, **FACTS, **options)


def write(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def line(made, name: str) -> list[float]:
    return np.round(made.number(name), 3).tolist()


def ind(folder: Path) -> Path:
    write(
        folder / "00_tracks.csv",
        "recordingId,trackId,frame,xCenter,yCenter,heading,width,length,xVelocity,yVelocity",
        *(f"0,{car},{100 + n},{n * 0.4},5,{90 * car},1.8,4.5,10,0" for car in (0, 1, 2) for n in range(N)),
    )
    write(
        folder / "00_tracksMeta.csv",
        "recordingId,trackId,class",
        "0,0,car",
        "0,1,truck_bus",
        "0,2,pedestrian",
    )
    return write(folder / "00_recordingMeta.csv", *LEVELX_META.split("\n")[:2])


def highd(folder: Path) -> Path:
    write(
        folder / "01_tracks.csv",
        "frame,id,x,y,width,height,xVelocity,yVelocity,laneId",
        *(f"{n},7,{n * 1.2},20,4.6,2.0,30,1,2" for n in range(N)),
    )
    write(folder / "01_tracksMeta.csv", "id,width,height,class", "7,4.6,2.0,Car")
    return write(folder / "01_recordingMeta.csv", *LEVELX_META.split("\n")[:2])


def test_ind_joins_types_and_rate_from_its_companions(tmp_path):
    ind(tmp_path)
    made = read(tmp_path, "ind")
    assert set(made.text("type")) == {"car", "truck_bus"}
    assert {(each.why, each.vehicles) for each in made.left_out} == {("type pedestrian", 1)}
    assert set(made.number("hz")) == {25.0}
    assert line(made, "t")[:3] == [0, 0.04, 0.08]
    assert set(line(made, "heading")) == {0, 1.571}
    assert line(made, "length")[0] == 4.5


def test_highd_has_corners_and_a_downward_axis(tmp_path):
    highd(tmp_path)
    made = read(tmp_path, "highd")
    assert (line(made, "x")[0], line(made, "y")[0]) == (2.3, -21.0)
    assert (line(made, "vx")[0], line(made, "vy")[0]) == (30, -1)
    assert (line(made, "length")[0], line(made, "width")[0]) == (4.6, 2.0)


def test_ngsim_is_in_feet_and_each_location_a_recording(tmp_path):
    write(
        tmp_path / "ngsim.csv",
        "Vehicle_ID,Frame_ID,Global_Time,Local_X,Local_Y,v_length,v_Width,v_Class,v_Vel,Location",
        *(
            f"3,{n},{1118846980200 + 100 * n},10,{3 * n},15,6,{k},30,{w}"
            for k, w in ((2, "us-101"), (3, "i-80"))
            for n in range(N)
        ),
    )
    made = read(tmp_path / "ngsim.csv", "ngsim")
    assert len(set(made.text("recording"))) == len(set(made.text("vehicle"))) == 2
    assert set(made.text("type")) == {"car", "truck_bus"}
    assert line(made, "x")[0] == 3.048
    assert line(made, "length")[0] == 4.572
    assert line(made, "t")[:2] == [0, 0.1]


def test_v2x_seq_sind_citysim_and_dut(tmp_path):
    write(
        tmp_path / "v2x" / "10000.csv",
        "city,timestamp,id,type,sub_type,tag,x,y,z,length,width,height,theta,v_x,v_y,intersect_id",
        *(
            f"PEK,{1626155123.0 + n / 10:.2f},{k},VEHICLE,{s},OTHERS,{4.2e5 + n},4.4e6,0,"
            "4.5,1.9,1.6,0.1,10,0,i"
            for k, s in ((1, "CAR"), (2, "CYCLIST"))
            for n in range(N)
        ),
    )
    made = read(tmp_path / "v2x", "v2x-seq")
    assert (set(made.text("type")), line(made, "t")[:2]) == ({"car"}, [0, 0.1])
    assert np.abs(made.number("y")).max() < 10_000
    write(
        tmp_path / "8_2_1" / "Veh_smoothed_tracks.csv",
        "track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy,yaw_rad,heading_rad,length,width",
        *(f"1,{n},{n * 100.1},car,{n},0,10,0,0.2,0.1,4.5,1.8" for n in range(N)),
    )
    assert line(read(tmp_path / "8_2_1", "sind"), "heading")[0] == 0.2
    write(
        tmp_path / "FreewayC-01.csv",
        "frameNum,carId,carCenterX,carCenterY,carCenterXft,carCenterYft,speed,heading,course,laneId",
        *(f"{n},4,0,0,{n},100,20,90,0,1" for n in range(N)),
    )
    made = read(tmp_path / "FreewayC-01.csv", "citysim")
    assert (set(made.number("hz")), line(made, "y")[0], line(made, "x")[1]) == ({30.0}, -30.48, 0.305)
    write(
        tmp_path / "intersection_01_traj_veh_filtered.csv",
        "id,frame,label,x_est,y_est,psi_est,vel_est",
        *(f"1,{n},veh,{n},0,{np.pi / 2},4" for n in range(N)),
    )
    made = read(tmp_path, "dut")
    assert (line(made, "vx")[0], line(made, "vy")[0], set(made.text("type"))) == (0, 4, {"car"})
    assert set(np.round(made.number("hz"), 2)) == {23.98}


def own(**changes) -> Mapping:
    document = {
        "columns": {
            "vehicle": "Car Id",
            "time": "UTC",
            "latitude": "Lat",
            "longitude": "Lon",
            "heading": "Yaw",
            "speed": "kmh",
            "recording": "Trip",
        },
        "units": {"time": "iso", "heading": "deg", "speed": "km/h"},
        "heading_from": "north",
        "type": "car",
    }
    return Mapping.model_validate(document | changes)


def export(*, zone: str = "") -> tuple[str, list[str]]:
    start = datetime.datetime(2026, 5, 1, 8)
    rows = [
        f"{(start + datetime.timedelta(seconds=n / 10)).isoformat()}{zone};{car};{trip};{49 + n * 9e-6:.8f};"
        f"{8.4 + car * 1e-4:.7f};0;36"
        for trip in "ab"
        for car in (1, 2)
        for n in range(N)
    ]
    return "UTC;Car Id;Trip;Lat;Lon;Yaw;kmh", rows


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_an_operator_s_own_export_is_imported_without_python(tmp_path, zone):
    header, rows = export(zone=zone)
    made = read(write(tmp_path / "trips.csv", header, *rows), own())
    assert len(set(made.text("recording"))) == 2
    assert len(set(made.text("vehicle"))) == 4
    # 9e-6 degrees of latitude are a metre: north at 10 m/s, as the compass says.
    mine = made.text("vehicle") == made.text("vehicle")[0]
    assert np.diff(made.number("y")[mine]) == pytest.approx(1.0, abs=0.01)
    assert line(made, "vy")[0] == 10.0
    assert made.number("heading")[0] == pytest.approx(np.pi / 2)
    assert line(made, "t")[:2] == [0, 0.1]
    every = read(tmp_path / "trips.csv", own(vehicle_is_unique=True, ego="2"))
    assert set(every.text("vehicle")) == {"columns/1", "columns/EU/ego"}


def test_projected_positions_are_those_of_an_independent_projection(tmp_path):
    header, rows = export()
    made = read(write(tmp_path / "trips.csv", header, *rows), own())
    # Two cars 1e-4 degrees of longitude apart: by the ellipsoid at 49 degrees; UTM is true near 8.4 east.
    radius = 6378137 / np.sqrt(1 - 0.00669438 * np.sin(np.radians(49)) ** 2)
    apart = radius * np.cos(np.radians(49)) * np.radians(1e-4)
    firsts = [
        made.number("x")[made.text("vehicle") == key][0] for key in sorted(set(made.text("vehicle")))[:2]
    ]
    assert firsts[1] - firsts[0] == pytest.approx(apart, rel=1e-3)


def test_parquet_with_types_of_its_own(tmp_path):
    start = datetime.datetime(2026, 5, 1, 8)
    stamps = [start + datetime.timedelta(milliseconds=100 * n) for n in range(N)]
    table = pa.table(
        {
            "id": pa.array(["a"] * N).dictionary_encode(),
            "when": pa.array(stamps, pa.timestamp("us")),
            "px": np.arange(N, dtype=np.float32),
            "py": pa.array([None, *range(1, N)], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns_ = {"vehicle": "id", "time": "when", "x": "px", "y": "PY"}
    made = read(tmp_path / "a.parquet", Mapping.model_validate({"columns": columns_}))
    assert line(made, "t")[:3] == [0, 0.1, 0.2]
    assert np.isnan(made.number("y")[0])
    assert set(made.number("hz")) == {10.0}


def test_a_bad_cell_is_named_and_a_row_left_out_on_request(tmp_path):
    rows = [f"{n},a,{n},{'x' if n == 3 else 0}" for n in range(N)]
    path = write(tmp_path / "a.csv", "t,id,x,y", *rows)
    known = Mapping.model_validate({"columns": {"vehicle": "id", "time": "t", "x": "x", "y": "y"}})
    with pytest.raises(DataError, match="line 5, column y"):
        read(path, known)
    assert read(path, known, skip_unfit=True).rows.num_rows == N - 1


WRONG = {
    "no-companion": (lambda f: (f / "00_tracksMeta.csv").unlink(), "no file 00_tracksMeta.csv beside it"),
    "no-column": (
        lambda f: write(f / "00_tracksMeta.csv", "trackId,kind", "0,car"),
        "no column class, nor in its companions",
    ),
    "two-rates": (
        lambda f: write(f / "00_recordingMeta.csv", "frameRate", "25", "30"),
        "2 rows, expected one row",
    ),
    "no-rate": (lambda f: write(f / "00_recordingMeta.csv", "place", "1"), "no column frameRate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_companions_that_do_not_fit_are_named(tmp_path, case):
    ind(tmp_path)
    change, said = WRONG[case]
    change(tmp_path)
    with pytest.raises(DataError, match=said):
        read(tmp_path, "ind")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[columns]\nvehicle = "a"\ntime = "t"\nx = "x"\n', "x and y, or latitude and longitude"),
        ('[columns]\nvehicle = "a"\ntime = "t"\nx = "x"\ny = "y"\n[units]\ntime = "h"\n', r"units\.time"),
        ('colums = 1\n[columns]\nvehicle = "a"\ntime = "t"\nx = "x"\ny = "y"\n', "did you mean columns"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_its_key(tmp_path, text, said):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        mapping.read(tmp_path / "m.toml")


def test_a_mapping_is_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", "t,id,x,y", "0,a,0,0")
    with pytest.raises(DataError, match="--mapping: got none, expected a mapping file, or one of citysim"):
        import_drives(path, format="columns", **FACTS)
    with pytest.raises(UsageError, match="nosuch"):
        mapping.read("nosuch")


LEVELX = "trackLifetime,xCenter,yCenter,heading,width,length,xVelocity,yVelocity,xAcceleration,yAcceleration"
FEET = 0.3048
# The files of each source with the header lines they are published with; cells that are not named are 0.
PUBLISHED = {
    "highd": {
        "01_recordingMeta.csv": (
            "id,frameRate,locationId,speedLimit,month,weekDay,startTime,duration,upperLaneMarkings",
            [{"frameRate": 25, "upperLaneMarkings": "8.5;12.6"}],
        ),
        "01_tracks.csv": (
            "frame,id,x,y,width,height,xVelocity,yVelocity,xAcceleration,dhw,thw,ttc,precedingId,laneId",
            [{"frame": n, "id": 1, "x": n * 0.4, "width": 4, "height": 2} for n in range(N)],
        ),
        "01_tracksMeta.csv": (
            "id,width,height,initialFrame,class,drivingDirection",
            [{"id": 1, "class": "Car"}],
        ),
    },
    "ind": {
        "00_recordingMeta.csv": (
            "recordingId,locationId,frameRate,speedLimit,latLocation,lonLocation,xUtmOrigin,yUtmOrigin",
            [{"frameRate": 25.0}],
        ),
        "00_tracks.csv": (
            f"recordingId,trackId,frame,{LEVELX},lonLaneletPos,laneChange,laneletId",
            [
                {"trackId": 1, "frame": n, "xCenter": n * 0.4, "length": 4, "width": 2, "laneChange": "0;1"}
                for n in range(N)
            ],
        ),
        "00_tracksMeta.csv": (
            "recordingId,trackId,initialFrame,finalFrame,numFrames,width,length,class",
            [{"trackId": 1, "class": "car"}],
        ),
    },
    "ngsim": {
        "Next_Generation_Simulation__NGSIM__Vehicle_Trajectories.csv": (
            "Vehicle_ID,Frame_ID,Total_Frames,Global_Time,Local_X,Local_Y,Global_X,Global_Y,v_length,v_Width,"
            "v_Class,v_Vel,v_Acc,Lane_ID,O_Zone,D_Zone,Int_ID,Section_ID,Direction,Movement,Location",
            [
                {"Vehicle_ID": 1, "Global_Time": 1118846980200 + 40 * n, "Local_X": n * 0.4 / FEET}
                | {"v_length": 4 / FEET, "v_Width": 2 / FEET, "v_Class": 2, "Location": "us-101"}
                for n in range(N)
            ],
        )
    },
    "ngsim-site": {
        "trajectories-0750am-0805am.csv": (
            "Vehicle_ID,Frame_ID,Total_Frames,Global_Time,Local_X,Local_Y,Global_X,Global_Y,v_Length,v_Width,"
            "v_Class,v_Vel,v_Acc,Lane_ID,Preceding,Following,Space_Headway,Time_Headway",
            [
                {"Vehicle_ID": 1, "Global_Time": 1118846980200 + 40 * n, "Local_X": n * 0.4 / FEET}
                | {"v_Length": 4 / FEET, "v_Width": 2 / FEET, "v_Class": 2}
                for n in range(N)
            ],
        )
    },
    "v2x-seq": {
        "10000.csv": (
            "city,timestamp,id,type,sub_type,tag,x,y,z,length,width,height,theta,v_x,v_y,intersect_id",
            [
                {"timestamp": 1626155123 + n / 25, "id": 1, "type": "VEHICLE", "sub_type": "CAR"}
                | {"x": n * 0.4, "length": 4, "width": 2}
                for n in range(N)
            ],
        )
    },
    "sind": {
        "Ped_smoothed_tracks.csv": (
            "track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy,ax,ay",
            [{"track_id": "P1", "timestamp_ms": n * 40, "agent_type": "pedestrian"} for n in range(N)],
        ),
        "Veh_smoothed_tracks.csv": (
            "track_id,frame_id,timestamp_ms,agent_type,x,y,vx,vy,yaw_rad,heading_rad,length,width,ax,ay,v_lon",
            [
                {"track_id": 1, "timestamp_ms": n * 40, "agent_type": "car", "x": n * 0.4}
                | {"length": 4, "width": 2}
                for n in range(N)
            ],
        ),
    },
    "citysim": {
        "FreewayC-01.csv": (
            "frameNum,carId,carCenterX,carCenterY,headX,headY,boundingBox1X,boundingBox1Y,carCenterXft,"
            "carCenterYft,headXft,headYft,speed,heading,course,laneId",
            [{"frameNum": n, "carId": 1, "carCenterXft": n * 0.4 / FEET} for n in range(N)],
        )
    },
    "dut": {
        "intersection_01_traj_ped_filtered.csv": (
            "id,frame,label,x_est,y_est,vx_est,vy_est",
            [{"id": 1, "frame": n, "label": "ped"} for n in range(N)],
        ),
        "intersection_01_traj_veh_filtered.csv": (
            "id,frame,label,x_est,y_est,psi_est,vel_est",
            [{"id": 1, "frame": n, "label": "veh", "x_est": n * 0.4} for n in range(N)],
        ),
    },
}


@pytest.mark.parametrize("name", mapping.shipped())
def test_a_folder_as_it_is_published_is_recognised_and_imported(tmp_path, name):
    for file, (header, rows) in PUBLISHED[name].items():
        cells = [",".join(str(row.get(column, 0)) for column in header.split(",")) for row in rows]
        write(tmp_path / file, header, *cells)
    _, found = columns.guess([tmp_path])
    assert found.sure == {f"shipped mapping {name}": 0.95}
    made = read(tmp_path, name)
    assert made.rows.num_rows == N
    steps = np.diff(np.sort(made.number("x")))
    assert steps == pytest.approx(np.full(N - 1, 0.4), abs=2e-3)
    assert set(made.text("type")) == {"car"}
    sizes = made.number("length"), made.number("width")
    if name in ("citysim", "dut"):
        assert np.isnan(sizes).all()
    else:
        assert np.allclose(sizes, [[4], [2]], atol=1e-3)


GUESSES = [
    ("VehicleID,time_ms,pos_x,pos_y,yaw_deg,class", "7,{ms},{n},0,90,Car", {"time": "ms", "heading": "deg"}),
    ("id,timestamp,lat,lon,speed_kmh", "7,{s},49.{n:04},8.4,30", {"time": "s", "speed": "km/h"}),
    ("track_id,frame,x,y,heading", "7,{n},{n},0,{n}0", {"time": "frame", "heading": "deg"}),
    ("t,id,easting,northing", "{s},7,{n},4", {"time": "s"}),
    ("id,time,x,y,length", "7,{s},{n},4,15", {"time": "s", "position": "ft", "size": "ft"}),
    ("datetime,id,x_ft,y_ft", "2026-05-01T08:00:{n:02},7,{n},4", {"time": "iso", "position": "ft"}),
]


@pytest.mark.parametrize(("header", "row", "units"), GUESSES)
def test_a_guess_imports_what_it_was_made_for(tmp_path, header, row, units):
    rows = [row.format(n=n, s=1.7e9 + n / 10, ms=100 * n) for n in range(N)]
    path = write(tmp_path / "a.csv", header, *rows)
    _, found = columns.guess([tmp_path])
    (tmp_path / "m.toml").write_text(found.text)
    proposed = mapping.read(tmp_path / "m.toml")
    assert {name: getattr(proposed.units, name) for name in units} == units
    made = read(path, proposed)
    assert (made.rows.num_rows, len(set(made.text("vehicle")))) == (N, 1)
    assert all(0 <= sure < 1 for sure in found.sure.values())


def test_a_guess_knows_a_decimal_comma(tmp_path):
    rows = [f"7;{n / 10};{n};{n / 2};0" for n in range(N)]
    path = write(tmp_path / "a.csv", "id;time;x;y;heading", *(row.replace(".", ",") for row in rows))
    _, found = columns.guess([path])
    (tmp_path / "m.toml").write_text(found.text)
    made = read(path, mapping.read(tmp_path / "m.toml"))
    np.testing.assert_allclose(np.diff(np.sort(made.number("t"))), 0.1, atol=1e-6)


def test_a_guess_without_a_position_says_so(tmp_path):
    write(tmp_path / "a.csv", "id,time,speed", "1,0,3")
    with pytest.raises(UsageError, match="could be x, y"):
        columns.guess([tmp_path])


@pytest.mark.parametrize(
    "file", ["../{stem}_meta.csv", "a/b.csv", "/etc/hosts", "..", "{stem.__class__}", "{", "{0}"]
)
def test_a_companion_lies_beside_the_table(file):
    document = {"columns": {"vehicle": "a", "time": "b", "x": "c", "y": "d"}, "companions": [{"file": file}]}
    with pytest.raises(ValueError, match="file: "):
        Mapping.model_validate(document)


def test_a_table_beyond_the_limit_of_what_is_held_is_read(tmp_path, monkeypatch):
    """In parts, with companions, frames, vehicles seen once and bad cells: the same as at once."""
    ind(tmp_path / "a")
    path = tmp_path / "a" / "00_tracks.csv"
    lines = path.read_text().splitlines()
    lines += [f"0,{car},100,{car},5,0,1.8,4.5,10,0" for car in range(10, 30)]
    path.write_text("\n".join([*lines, "0,1,7,left,5,0,1.8,4.5,10,0", "0,1", ""]))
    with (tmp_path / "a" / "00_tracksMeta.csv").open("a") as meta:
        meta.writelines(f"0,{car},car\n" for car in range(10, 30))
    with pytest.raises(
        DataError, match=r"line 142, column xCenter: text that is no number.*line 143: 2 cells"
    ):
        read(tmp_path / "a", "ind")
    whole = read(tmp_path / "a", "ind", skip_unfit=True)
    monkeypatch.setattr("fedfsd.drive.reader.spool.HELD", 1)
    monkeypatch.setattr("fedfsd.drive.reader.delimited.BLOCK", 300)
    monkeypatch.setattr("fedfsd.drive.reader.delimited.MAX_BYTES", 4000)
    made = read(tmp_path / "a", "ind", skip_unfit=True)
    assert made.left_out == whole.left_out
    order = [("vehicle", "ascending"), ("t", "ascending")]
    assert made.rows.sort_by(order).equals(whole.rows.sort_by(order))
    assert len(set(made.text("vehicle"))) == 22


@pytest.mark.parametrize("held", [1, 2**26])
def test_a_large_file_is_compressed_or_parquet_too(tmp_path, monkeypatch, held):
    write(
        tmp_path / "a.csv", "id,t,x,y", *(f"{car},{n / 10},{n},{car}" for n in range(N) for car in range(9))
    )
    mapping = Mapping.model_validate({"columns": {"vehicle": "id", "time": "t", "x": "x", "y": "y"}})
    plain = read(tmp_path / "a.csv", mapping)
    monkeypatch.setattr("fedfsd.drive.reader.spool.HELD", held)
    monkeypatch.setattr("fedfsd.drive.reader.delimited.BLOCK", 1000)
    monkeypatch.setattr("fedfsd.drive.reader.delimited.ROWS", 7)
    pq.write_table(pa.csv.read_csv(tmp_path / "a.csv"), tmp_path / "a.parquet")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    order = [("vehicle", "ascending"), ("t", "ascending")]
    for name in ("a.csv", "a.parquet", "b.csv.gz"):
        made = read(tmp_path / name, mapping)
        for column in ("t", "x", "y", "hz"):
            assert made.rows.sort_by(order)[column].equals(plain.rows.sort_by(order)[column])
    # What is cut at its end is refused however much of it was read.
    (tmp_path / "b.csv.gz").write_bytes((tmp_path / "b.csv.gz").read_bytes()[:-20])
    with pytest.raises(DataError, match="a gzip file that is cut short"):
        read(tmp_path / "b.csv.gz", mapping)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet"):
        read(tmp_path / "a.parquet", mapping)
