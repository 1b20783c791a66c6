"""Each format: a small file written by hand, the real sample where there is one, and damaged files."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfsd.drive import table
from fedfsd.drive.reader import import_drives
from fedfsd.errors import DataError

FIXTURE = Path(__file__).parent / "fixture"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SAMPLES = SHARED / "loader_samples"
FACTS = {"region": "EU", "licence": "CC0", "identity": "recording", "origin": "published"}


def numbers(made: table.Table, *names: str) -> list[list[float]]:
    return np.round(np.stack([made.number(name) for name in names], axis=1), 4).tolist()


def test_apolloscape():
    made = import_drives(FIXTURE / "apolloscape.txt", format="apolloscape", source="apolloscape", **FACTS)
    assert made.text("vehicle").tolist() == [
        f"apolloscape/fixture/apolloscape/{n}" for n in (1, 3, 1, 1, 1, 1)
    ]
    assert made.text("type").tolist() == ["car", "truck_bus", "car", "car", "car", "car"]
    mine = made.text("vehicle") == "apolloscape/fixture/apolloscape/1"
    # 2 Hz from the first frame; a run ends where a frame is missing; one point has no velocity.
    assert made.number("t")[mine].tolist() == [0, 0.5, 1, 2.5, 3]
    assert made.number("vx")[mine].tolist() == [10, 11, 12, 12, 12]
    assert made.number("vy")[mine].tolist() == [0, 2, 4, 4, 4]
    assert np.isnan(made.number("vx")[~mine]).all()
    assert made.number("heading")[~mine] == pytest.approx([3.1])
    assert set(made.number("hz")) == {2.0}
    assert {each.why: (each.rows, each.vehicles) for each in made.left_out} == {
        "type pedestrian": (1, 1),
        "type motor- or bicyclist": (1, 1),
        "type other": (1, 1),
    }


def test_apolloscape_at_another_rate():
    made = import_drives(FIXTURE / "apolloscape.txt", format="apolloscape", hz=10, **FACTS)
    assert made.number("t").max() == pytest.approx(0.6)
    assert set(made.number("hz")) == {10.0}


def test_interaction():
    made = import_drives(FIXTURE / "vehicle_tracks_001.csv", format="interaction", source="taf", **FACTS)
    assert made.text("vehicle").tolist() == ["taf/fixture/vehicle_tracks_001/1"] * 3 + [
        "taf/fixture/vehicle_tracks_001/3"
    ]
    assert made.text("type").tolist() == ["car", "car", "car", "truck"]
    assert numbers(made, "t", "x", "y", "heading", "length")[1] == [0.1, 1, 0, 0, 4.5]
    assert np.isnan(made.number("vx")[2])
    assert set(made.number("hz")) == {10.0}


def test_interaction_cases_are_recordings(tmp_path):
    rows = ["case_id,track_id,timestamp_ms,agent_type,x,y"]
    rows += [f"{case},1,{time},car,{time / 100},0" for case in (1, 2) for time in (100, 200, 300)]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    made = import_drives(tmp_path / "train.csv", format="interaction", source="i", **FACTS)
    assert set(made.text("recording")) == {f"{tmp_path.name}/train/{case}" for case in (1, 2)}
    assert len(set(made.text("vehicle"))) == 2


def test_commonroad_2018b():
    made = import_drives(FIXTURE / "commonroad_2018b.xml", format="commonroad", **FACTS)
    assert set(made.text("vehicle")) == {"commonroad/ZAM_Town-3/7"}
    assert set(made.text("recording")) == {"ZAM_Town-3_2_T-1"}
    assert numbers(made, "t", "x", "y", "vx", "vy", "length", "width", "hz") == [
        [0, 1, 2, 0, 10, 4.5, 1.8, 10],
        [0.1, 1, 3, 0, 10, 4.5, 1.8, 10],
    ]
    assert made.number("heading") == pytest.approx([np.pi / 2] * 2)


def test_commonroad_2020a():
    made = import_drives(FIXTURE / "commonroad_2020a.xml", format="commonroad", **FACTS)
    assert set(made.text("vehicle")) == {"commonroad/ZAM_Town-3/7"}
    assert set(made.text("type")) == {"truck"}
    assert numbers(made, "t", "x", "y", "heading", "length", "hz") == [
        [0, 0, 0, 0, 9, 5],
        [0.2, 1, 0, 0, 9, 5],
        [0.4, 2, 0, 0, 9, 5],
    ]
    assert made.number("vx")[:2].tolist() == [5, 5]
    assert np.isnan(made.number("vx")[2]), "a state may lack its velocity"


def test_two_scenarios_of_one_map_share_the_keys():
    files = [FIXTURE / "commonroad_2018b.xml", FIXTURE / "commonroad_2020a.xml"]
    made = import_drives(files, format="commonroad", **FACTS)
    assert set(made.text("vehicle")) == {"commonroad/ZAM_Town-3/7"}
    assert len(set(made.text("recording"))) == 2


def argoverse(**changes) -> pa.Table:
    tracks, kinds = ["AV", "AV", "1", "2", "3"], ["vehicle", "vehicle", "bus", "pedestrian", "motorcyclist"]
    count = len(tracks)
    columns = {
        "track_id": tracks,
        "object_type": kinds,
        "timestep": [0, 1, 0, 0, 5],
        "position_x": [0.0, 1.0, 2.0, 3.0, 4.0],
        "position_y": [0.0] * count,
        "velocity_x": [10.0] * count,
        "velocity_y": [0.0] * count,
        "heading": [0.1] * count,
        "scenario_id": ["abc"] * count,
        "start_timestamp": [1e17] * count,
        "end_timestamp": [1e17 + 10.9e9] * count,
        "num_timestamps": [110] * count,
        "city": ["austin"] * count,
    }
    return pa.table({name: values for name, values in (columns | changes).items() if values is not None})


def test_argoverse2(tmp_path):
    pq.write_table(argoverse(), tmp_path / "scenario_abc.parquet")
    made = import_drives(tmp_path, format="argoverse2", **FACTS)
    assert made.text("vehicle").tolist() == ["argoverse2/austin/ego"] * 2 + [
        "argoverse2/abc/1",
        "argoverse2/abc/3",
    ]
    assert numbers(made, "t", "x", "vx", "heading", "hz") == [
        [0, 0, 10, 0.1, 10],
        [0.1, 1, 10, 0.1, 10],
        [0, 2, 10, 0.1, 10],
        [0.5, 4, 10, 0.1, 10],
    ]
    assert np.isnan(made.number("length")).all()


def scene(**changes) -> dict:
    def track(kind: str, own: str, x: float) -> dict:
        state = {
            "position": np.array([[x, 0, 9], [x + 1, 0, 9], [x + 2, 1, 9]], float),
            "velocity": np.full((3, 2), 10.0),
            "heading": np.array([0.0, 0.1, 0.2]),
            "valid": np.array([1.0, 1.0, 0.0]),
            "length": np.full((3, 1), 4.5),
            "width": np.full((3, 1), 1.8),
        }
        return {"type": kind, "metadata": {"type": own}, "state": state}

    whole = {
        "id": "scene-1",
        "metadata": {
            "ts": np.array([0.0, 0.1, 0.2]),
            "sdc_id": "ego",
            "map": "singapore-onenorth",
            "dataset": "nuscenes",
        },
        "tracks": {
            "ego": track("VEHICLE", "vehicle.car", 0),
            "a1": track("VEHICLE", "vehicle.bus.rigid", 50),
            "b2": track("PEDESTRIAN", "human.pedestrian.adult", 90),
            "c3": track("CYCLIST", "vehicle.bicycle", 70),
            "d4": track("CYCLIST", "vehicle.motorcycle", 80),
        },
        "map_features": {},
    }
    return whole | changes


def test_scenarionet(tmp_path):
    for name in ("scene-1", "scene-2"):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(scene(id=name), protocol=4))
    made = import_drives(tmp_path, format="scenarionet", **FACTS)
    first = made.text("recording") == "scene-1"
    # Both scenes' districts lie in one city, so one car recorded them.
    assert made.text("vehicle")[first].tolist() == [
        *["scenarionet/singapore/ego"] * 2,
        *["scenarionet/scene-1/a1"] * 2,
        *["scenarionet/scene-1/d4"] * 2,
    ]
    assert len(set(made.text("vehicle"))) == 5
    assert set(made.text("type")) == {"car", "bus.rigid", "motorcycle"}
    left = {each.why: (each.rows, each.vehicles) for each in made.left_out}
    assert left == {"type pedestrian": (4, 2), "type cyclist": (4, 2)}
    rows = numbers(made, "t", "x", "y", "vx", "heading", "length", "width", "hz")
    assert rows[2:4] == [[0, 50, 0, 10, 0, 4.5, 1.8, 10], [0.1, 51, 0, 10, 0.1, 4.5, 1.8, 10]]


DAMAGED = {
    "apolloscape": [
        (lambda data: data[:-20], "line 9"),
        (lambda data: data.replace(b"105.0", b"abc"), "no number"),
        (lambda data: data.replace(b"\n11 1", b"\nx 1"), "line 4"),
        (lambda data: b"\n".join(line for line in data.split(b"\n") if b" 3 90" in line), "no vehicle"),
        (lambda _: b"\n\n", "no line"),
        (lambda _: b"\x00\xff\xfe", "line 1"),
    ],
    "interaction": [
        (lambda data: data.replace(b"agent_type", b"kind"), "no column agent_type"),
        (lambda data: data.replace(b"9.0,1.0", b"9.0,one"), r"line 6, column y: got text that is no number"),
        (lambda data: data[:-20], r"line 6: got \d+ cells, expected 11"),
        (lambda data: data.split(b"\n")[0] + b"\n", "no vehicle"),
        (lambda data: data.replace(b"Car", b"dog").replace(b"Truck", b"cat"), "no vehicle"),
        (lambda _: b"\xff\xfe\x00", "bytes that are no text"),
        (lambda _: b"\n", "no line"),
    ],
    "commonroad": [
        (lambda data: data[:-200], "not well-formed"),
        (
            lambda data: data.replace(b"commonRoad ", b"scenario ").replace(b"/commonRoad", b"/scenario"),
            "root",
        ),
        (lambda data: data.replace(b"2018b", b"2017a"), "2018b or 2020a"),
        (lambda data: data.replace(b"role>dynamic", b"role>static"), "no vehicle"),
        (lambda data: data.replace(b' timeStepSize="0.1"', b""), "timeStepSize"),
        (lambda data: data.replace(b'"0.1"', b'"0"'), "frames a second"),
        (lambda data: data.replace(b"<x>1.0</x>", b"<x>left</x>"), "obstacle 7: position/point/x"),
        (lambda data: data.replace(b"<point>", b"<circle>").replace(b"</point>", b"</circle>"), "is missing"),
        (lambda data: data.replace(b' id="7"', b""), "without id"),
        (lambda data: data.replace(b"<commonRoad ", b"<!DOCTYPE a><commonRoad ", 1), "document type"),
        (lambda data: data.replace(b"UTF-8", b"no-such-code"), "XML|encoding"),
        (lambda _: b"\x00\x01\x02", "not well-formed"),
    ],
    "argoverse2": [
        (lambda data: data[:-100], "not a readable Parquet"),
        (lambda _: argoverse(heading=None), "no column heading"),
        (lambda _: argoverse(position_x=["a"] * 5), "another type"),
        (lambda _: argoverse(num_timestamps=[None] * 5), "another type"),
        (lambda _: argoverse(end_timestamp=[1e17] * 5), "another type"),
        (lambda _: argoverse(object_type=["pedestrian"] * 5), "no vehicle"),
        (lambda _: argoverse().slice(0, 0), "no row"),
    ],
    "scenarionet": [
        (lambda data: data[:-100], "damaged pickle"),
        (lambda _: [1, 2], "no metadata"),
        (lambda _: scene(metadata={}), "no ts"),
        (lambda _: scene(metadata={"ts": np.array([0.0, 0.0])}), "does not ascend"),
        (lambda _: scene(metadata={"ts": np.array(["a", "b"])}), "another kind"),
        (lambda _: scene(metadata={"ts": np.arange(9.0)}), "another length"),
        (lambda _: scene(tracks={}), "no vehicle"),
        (lambda _: scene(tracks={"a": 3}), "no vehicle"),
        (lambda _: scene(tracks={"a": {"type": "VEHICLE"}}), "no state"),
        (
            lambda _: scene(tracks={"a": {"type": "VEHICLE", "state": {"position": np.zeros((3, 1))}}}),
            "columns",
        ),
        (lambda _: scene(tracks={"a": {"type": "VEHICLE", "state": {"position": "here"}}}), "no position"),
    ],
}
NAMES = {
    "apolloscape": "apolloscape.txt",
    "interaction": "vehicle_tracks_001.csv",
    "commonroad": "commonroad_2018b.xml",
    "argoverse2": "scenario.parquet",
    "scenarionet": "scene.pkl",
}


@pytest.mark.parametrize(
    ("format", "number"), [(name, number) for name, cases in DAMAGED.items() for number in range(len(cases))]
)
def test_a_damaged_file_is_one_error_with_place_and_fix(tmp_path, format, number):
    change, said = DAMAGED[format][number]
    path = tmp_path / NAMES[format]
    if format == "argoverse2":
        pq.write_table(argoverse(), path)
        good = path.read_bytes()
    elif format == "scenarionet":
        good = pickle.dumps(scene(), protocol=4)
    else:
        good = (FIXTURE / NAMES[format]).read_bytes()
    path.write_bytes(good)
    import_drives(path, format=format, **FACTS)  # the file is whole before it is damaged
    bad = change(good)
    if isinstance(bad, pa.Table):
        pq.write_table(bad, path)
    else:
        path.write_bytes(bad if isinstance(bad, bytes) else pickle.dumps(bad, protocol=4))
    with pytest.raises(DataError, match=said) as caught:
        import_drives(path, format=format, **FACTS)
    assert str(path) in caught.value.place
    assert caught.value.got
    assert caught.value.expected
    assert caught.value.hint


def test_an_entity_bomb_is_refused_before_it_grows(tmp_path):
    levels = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><commonRoad>&e9;</commonRoad>'
    (tmp_path / "a.xml").write_text(bomb)
    with pytest.raises(DataError, match="document type"):
        import_drives(tmp_path / "a.xml", format="commonroad", **FACTS)


def test_xml_nested_deeply_is_no_crash(tmp_path):
    deep = 200_000
    (tmp_path / "a.xml").write_text("<commonRoad>" + "<a>" * deep + "</a>" * deep + "</commonRoad>")
    with pytest.raises(DataError):
        import_drives(tmp_path / "a.xml", format="commonroad", **FACTS)


# What the README of the extract says its makers did, done again by our readers on their samples.
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not on this machine")
@pytest.mark.parametrize(
    ("format", "folder", "extract", "recordings", "differ"),
    [
        # CN: shifted by whole metres, course instead of the annotated heading.
        (
            "apolloscape",
            "apolloscape_txt",
            "CN_apolloscape",
            {"apolloscape_txt/9048_1": "9048_1"},
            {"x", "y", "heading"},
        ),
        (
            "commonroad",
            "commonroad_2018b",
            "US_ngsim-commonroad",
            {name: name for name in ("USA_Lanker-1_10_T-1", "USA_US101-11_1_T-1")},
            set(),
        ),
        # EU: velocities recomputed from smoothed positions.
        (
            "interaction",
            "interaction_csv_taf-bw",
            "EU_taf-bw",
            {"interaction_csv_taf-bw/vehicle_tracks_013": "k729_2022-03-16_013"},
            {"vx", "vy"},
        ),
        ("scenarionet", "scenarionet_pkl", "SG_nuscenes-mini", {"scene-1100": "scene-1100"}, set()),
        ("scenarionet", "scenarionet_pkl", "US_nuscenes-mini", {"scene-0757": "scene-0757"}, set()),
    ],
)
def test_the_samples_read_as_the_extract_has_them(format, folder, extract, recordings, differ):
    made = import_drives(SAMPLES / folder, format=format, source=format, **FACTS)
    (known,) = table.read(SHARED / f"{extract}.parquet")
    for name, their_name in recordings.items():
        # The extract has no motorcycles.
        ours = (made.text("recording") == name) & (made.text("type") != "motorcycle")
        theirs = known.text("recording") == their_name
        assert ours.sum() == theirs.sum() > 0
        order = [
            np.lexsort((t.number("y")[rows], t.number("x")[rows], np.round(t.number("t")[rows], 3)))
            for t, rows in ((made, ours), (known, theirs))
        ]
        for column in set(table.NUMBER_COLUMNS) - differ:
            a, b = made.number(column)[ours][order[0]], known.number(column)[theirs][order[1]]
            if column == "t":  # the extract keeps the source's clock
                a, b = a - a.min(), b - b.min()
            assert np.allclose(a, b, atol=1e-4, equal_nan=True), column
        if format == "apolloscape":
            for axis in ("x", "y"):
                shift = made.number(axis)[ours][order[0]] - known.number(axis)[theirs][order[1]]
                assert np.allclose(shift, round(shift[0]), atol=1e-4)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not on this machine")
def test_the_samples_keys_and_types():
    made = import_drives(SAMPLES / "argoverse2", format="argoverse2", **FACTS)
    assert made.rows.num_rows == 1774
    assert len(set(made.text("vehicle"))) == 32
    assert (made.text("vehicle") == "argoverse2/austin/ego").sum() == 110
    made = import_drives(SAMPLES / "scenarionet_pkl", format="scenarionet", **FACTS)
    egos = {key for key in made.text("vehicle") if key.endswith("ego")}
    assert egos == {"scenarionet/boston/ego", "scenarionet/singapore/ego"}
    assert "pedestrian" not in set(made.text("type"))
