"""The camera task: generated frames, paths by an independent reference, damaged frames, a private run."""

from __future__ import annotations

import io
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fedfsd
from fedfsd.audit.evidence import load
from fedfsd.audit.statement import statement
from fedfsd.audit.verify import verify
from fedfsd.cli.data_check import check
from fedfsd.drive import mapped, table
from fedfsd.drive.table import Table
from fedfsd.engine import backbone
from fedfsd.engine.probe import probe
from fedfsd.engine.vehicle import place
from fedfsd.errors import ConfigError, DataError, NotReadyError, UsageError
from fedfsd.task import score
from fedfsd.task.camera import drives, fleet, render
from fedfsd.task.camera.task import Camera, constant_yaw_rate, straight

KITTI = Path(__file__).parents[4] / "shared" / "data" / "camera" / "DE_kitti.parquet"


@pytest.fixture(scope="module")
def small() -> Table:
    """Ten cars in each of two regions, three frames a car."""
    made = fleet.generate(("EU", "SG"), cars=10, frames=3, seed=4)
    return Table(table.conform(made.rows, "fleet", drives.SCHEMA), made.licence, made.identity, made.origin)


def jpeg(array: np.ndarray, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def test_equal_seeds_give_equal_fleets_and_a_smaller_one_is_the_beginning(small):
    again = fleet.generate(("EU", "SG"), cars=10, frames=3, seed=4)
    assert again.rows.equals(small.rows.select(again.rows.column_names).cast(again.rows.schema))
    fewer = fleet.generate(("EU",), cars=4, frames=3, seed=4)
    assert again.rows.slice(0, fewer.rows.num_rows).equals(fewer.rows)
    assert not fleet.generate(("EU",), cars=1, frames=1, seed=5).rows.equals(fewer.rows.slice(0, 8))


def test_the_path_driven_lies_on_the_road_of_the_picture():
    """What is drawn and what is learnt agree: the path stays in the lane's picture, mirrored or not."""
    for region in ("CN", "EU", "SG", "US"):
        here, random = fleet.REGIONS[region], np.random.default_rng(3)
        for _ in range(40):
            driver = fleet._driver(random, here)
            scene, _, poses = fleet._moment(random, here, driver)
            x, y, heading, _ = poses.T
            cos, sin = np.cos(heading[1]), np.sin(heading[1])
            ahead = (x - x[1]) * cos + (y - y[1]) * sin
            left = (y - y[1]) * cos - (x - x[1]) * sin
            side = -left if here.style.left_hand else left
            off = side[2:] - render.middle(scene, ahead[2:])
            assert np.abs(off).max() < here.style.lane / 2 + 0.8


def test_a_line_on_the_road_is_drawn_where_it_is():
    """The camera by hand: a dark row of the picture at the place of a mark on the ground."""
    mount = render.Mount(100.0, 1.5, 0.05, 0.0, 0.0, 1.0, 1.0, (1.0, 1.0, 1.0), 0.0, 0.0)
    row, column = render._project(10.0, 1.0, 0.0, mount)
    down = 1.5 * np.cos(0.05) - 10 * np.sin(0.05)
    ahead = 10 * np.cos(0.05) + 1.5 * np.sin(0.05)
    assert row == pytest.approx(100 * down / ahead + 0.42 * render.HEIGHT)
    assert column == pytest.approx((render.WIDTH - 1) / 2 - 100 / ahead)
    x, y, _, _ = render._rays(mount)
    at = round(row), round(column)
    assert x[at] == pytest.approx(10, rel=0.05)
    assert y[at] == pytest.approx(1, abs=0.1)


def test_left_hand_traffic_is_the_mirrored_scene():
    scene = render.Scene(0.2, 0.0, 0.004, 0.0, 30.0, ((20.0, 0, 3),), 7)
    style = fleet.REGIONS["EU"].style
    weather = render.Weather(1.0, 200.0, 0.3, 0.0)
    mount = render.Mount(100.0, 1.5, 0.02, 0.0, 0.0, 1.0, 1.0, (1.0, 1.0, 1.0), 0.0, 0.0)
    right = render.frame(scene, style, weather, mount)
    left = render.frame(scene, fleet.replace(style, left_hand=True), weather, mount)
    assert (left == right[:, ::-1]).all()


@pytest.mark.parametrize(
    ("regions", "cars", "frames"),
    [(("EU", "EU"), 1, 1), (("XX",), 1, 1), ((), 1, 1), (("EU",), 0, 1), (("EU",), 1, 0)],
)
def test_what_cannot_be_generated_is_refused(regions, cars, frames):
    with pytest.raises(UsageError):
        fleet.generate(regions, cars=cars, frames=frames, seed=1)


def test_examples_are_frames_with_their_paths_by_car(small):
    found = drives.examples([small], test=False)
    assert found.inputs["image"].shape == (len(found), 3, render.HEIGHT, render.WIDTH)
    assert found.inputs["image"].dtype == np.uint8
    assert len(found) == 3 * len(found.vehicles)
    assert (np.diff(found.owner) >= 0).all()
    tested = drives.examples([small], test=True)
    assert not set(found.vehicles) & set(tested.vehicles)
    assert len(found.vehicles) + len(tested.vehicles) == 20


def slow_paths(rows: pa.Table) -> dict[int, np.ndarray]:
    """The reference: for each frame each point between the two poses of its recording around it."""
    every = rows.to_pylist()
    found = {}
    for number, row in enumerate(every):
        if row["image"] is None:
            continue
        mine = sorted(
            (
                one
                for one in every
                if (one["vehicle"], one["recording"]) == (row["vehicle"], row["recording"])
            ),
            key=lambda one: one["t"],
        )
        path = []
        for horizon in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
            wanted = row["t"] + horizon
            pairs = [(a, b) for a, b in itertools.pairwise(mine) if a["t"] < wanted <= b["t"] + 1e-6]
            if not pairs or pairs[0][1]["t"] - pairs[0][0]["t"] > 0.6:
                break
            a, b = pairs[0]
            share = (wanted - a["t"]) / (b["t"] - a["t"])
            dx = a["x"] + share * (b["x"] - a["x"]) - row["x"]
            dy = a["y"] + share * (b["y"] - a["y"]) - row["y"]
            cos, sin = np.cos(row["heading"]), np.sin(row["heading"])
            path.append((dx * cos + dy * sin, dy * cos - dx * sin))
        if len(path) == 6:
            found[number] = np.array(path)
    return found


@given(st.integers(0, 2**32 - 1))
def test_paths_are_those_of_the_slow_reference(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 60))
    rows = pa.table(
        {
            "vehicle": pa.array(random.choice(["a", "b"], count)),
            "recording": pa.array(random.choice(["1", "2"], count)),
            "t": pa.array(np.round(random.uniform(0, 8, count), 3)),
            "image": pa.array([b"x" if random.random() < 0.5 else None for _ in range(count)], pa.binary()),
            **{name: pa.array(random.uniform(-3, 3, count), pa.float32()) for name in ("x", "y", "heading")},
            "speed": pa.array(random.uniform(0, 20, count), pa.float32()),
        }
    )
    _, first = np.unique(
        [
            f"{v}{r}{t}"
            for v, r, t in zip(*(rows[n].to_pylist() for n in ("vehicle", "recording", "t")), strict=True)
        ],
        return_index=True,
    )
    rows = rows.take(np.sort(first))  # two poses at one time are nobody's
    found, slow = drives.followed(rows, rows["image"].is_valid().to_numpy()), slow_paths(rows)
    assert set(found.rows.tolist()) == set(slow)
    for number, row in enumerate(found.rows):
        np.testing.assert_allclose(found.path[number], slow[int(row)], atol=1e-4)
    assert set(found.refused) == set(np.flatnonzero(rows["image"].is_valid().to_numpy())) - set(slow)


def _picture(width: int = render.WIDTH, height: int = render.HEIGHT) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        jpeg(_picture())[:400],
        jpeg(_picture().astype(np.uint16)[..., 0], "PNG"),
        jpeg(_picture(160, 20)),
        jpeg(_picture(), "BMP"),
        jpeg(_picture(), "GIF"),
    ],
    ids=["empty", "head", "cut", "16 bit", "too flat", "bmp", "gif"],
)
def test_a_frame_that_cannot_be_used_is_none(data):
    assert drives.decode(data) is None


def test_a_decompression_bomb_is_told_by_its_header(monkeypatch):
    monkeypatch.setattr(drives, "MOST_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    assert drives.decode(jpeg(_picture())) is None


def test_other_sizes_and_grey_are_fitted():
    assert drives.decode(jpeg(_picture(320, 240), "PNG")).shape == (3, 64, 160)
    grey = drives.decode(jpeg(_picture()[..., 0], "PNG"))
    assert (grey[0] == grey[1]).all()
    exact = _picture()
    assert (drives.decode(jpeg(exact, "PNG")) == exact.transpose(2, 0, 1)).all()


def test_what_is_left_out_depends_on_the_car_alone(small):
    """A car with damaged frames changes nothing for the others, and its frames are counted by reason."""
    clean = drives.examples([small], test=False)
    key = clean.vehicles[0]
    rows = small.rows.to_pylist()
    for row in rows:
        if row["vehicle"] == key:
            row["image"] = row["image"] and b"\xff\xd8 no frame"
    damaged = Table(pa.Table.from_pylist(rows, drives.SCHEMA), small.licence, small.identity, small.origin)
    found = drives.examples([damaged], test=False)
    assert found.vehicles == clean.vehicles
    assert found.dropped["frames that do not decode"].tolist() == [3] + [0] * (len(clean.vehicles) - 1)
    assert (found.inputs["image"] == clean.inputs["image"][3:]).all()
    assert (found.targets["path"] == clean.targets["path"][3:]).all()


SMALL = {"shrink": 4, "regions": ["EU", "SG"]}


@pytest.mark.parametrize(("name", "options"), [("conv", {"adapters": 2}), ("pilotnet", {"paths": 2})])
def test_models_are_trained_by_car(name, options):
    task = Camera(SMALL)
    probe(task.model(name, options, seed=1), task)


@pytest.mark.parametrize("name", ["conv", "pilotnet", "resnet18"])
def test_what_is_trained_can_be_named(name):
    model = Camera(SMALL).model(name, {"adapters": 2}, seed=1)
    head, norms, adapters, last, two, every = (
        set(backbone.trained(model, word))
        for word in ("head", "norms", "adapters", "last 1 blocks", "last 2 blocks", "all")
    )
    assert head == {"head.linear.weight", "head.linear.bias"}
    assert head < last < two < every
    assert all(".adapter." in one for one in adapters)
    assert not head & (norms | adapters)
    with pytest.raises(ConfigError, match='"last 1 blocks"'):
        backbone.trained(model, "last 99 blocks")


def test_adapters_and_regions_change_nothing_at_first_and_then_something(small):
    task = Camera(SMALL)
    found = task.examples([small], test=False)
    region = found.inputs["region"]
    assert {tuple(row) for row in (region**2).round(4).tolist()} == {(2.0, 0.0), (0.0, 2.0)}
    inputs = [torch.from_numpy(array[:4]) for array in found.inputs.values()]
    model = task.model("conv", {"adapters": 2}, seed=1).eval()
    before = model(*inputs)[0]
    for name in ("body.0.adapter.down.weight", "body.3.adapter.down.bias"):
        torch.nn.init.normal_(model.get_parameter(name))
    assert torch.equal(model(inputs[0], inputs[1], torch.zeros(4, 2))[0], before)
    torch.nn.init.normal_(model.get_parameter("head.linear.weight"))
    assert not torch.equal(model(inputs[0], inputs[1], torch.zeros(4, 2))[0], model(*inputs)[0])
    assert torch.equal(model.head(*model.trunk(*inputs))[0], model(*inputs)[0])


def test_whitening_changes_no_path_and_makes_inputs_of_one_size(small):
    task = Camera(SMALL)
    found = task.examples([small], test=False)
    inputs = [torch.from_numpy(np.array(array)) for array in found.inputs.values()]
    model = task.model("conv", {}, seed=1).eval()
    torch.nn.init.normal_(model.head.linear.weight)
    before = model(*inputs)[0]
    features = model.trunk(*inputs)[0]
    for _ in range(2):  # a second time, too
        model.head.whiten(features, inputs[1])
        torch.testing.assert_close(model(*inputs)[0], before, rtol=1e-3, atol=1e-3)
    white = (model.head._seen(features, inputs[1]) - model.head.centre) @ model.head.whitening
    spread = torch.linalg.eigvalsh(torch.cov(white.T))
    assert spread.max() < 1.01
    assert (spread > 0.99).sum() >= 5
    frozen = backbone.packed(model, backbone.trained(model, "head"))
    assert b"head.whitening" in frozen


def test_a_region_that_is_not_named_is_none(small):
    (only,) = {
        tuple(row) for row in Camera({"regions": ["US"]}).examples([small], test=True).inputs["region"]
    }
    assert only == (0.0,)


def test_frames_stand_in_a_file_and_are_the_same_behind_the_engine(small):
    found = Camera(SMALL).examples([small], test=False)
    assert isinstance(found.inputs["image"], np.memmap)
    plain = replace(found, inputs={name: np.array(array) for name, array in found.inputs.items()})
    cpu = torch.device("cpu")
    data, same = (place(one, roster=20, device=cpu) for one in (found, plain))
    for name in found.inputs:
        assert torch.equal(data.inputs[name], same.inputs[name])
    assert not data.inputs["image"][-1].any()


def test_a_disk_without_room_is_said(monkeypatch):
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NotReadyError, match=r"No space left on device.*TMPDIR"):
        mapped.zeros((2, 2), np.dtype(np.uint8))
    with pytest.raises(NotReadyError, match="TMPDIR"):
        mapped.rows((full() for _ in range(1)), drives.SCHEMA)


def test_kinds_divide_the_frames(small):
    task = Camera({})
    found = task.examples([small], test=False)
    kinds = task.kinds(found)
    assert (kinds["straight"] ^ kinds["curve"]).all()
    assert (kinds["day"] ^ kinds["night"]).all()
    ends = found.targets["path"][:, -1]
    assert (
        np.abs(ends[kinds["curve"], 1]).min()
        > np.abs(ends[kinds["straight"], 1] / ends[kinds["straight"], 0]).max()
    )
    lit = found.inputs["image"].mean(axis=(1, 2, 3))
    assert lit[kinds["night"]].max(initial=0) < lit[kinds["day"]].min()


def test_figures_at_each_second_by_hand(small):
    """A forecast that is off by 1 m to the left at the first point, 2 m at the second, and so on."""
    task = Camera({})
    found = task.examples([small], test=True)
    off = np.zeros_like(found.targets["path"])
    off[..., 1] = np.arange(1, 7)
    scores = task.measured((found.targets["path"] + off)[:, None], np.zeros((len(found), 1)), found)
    means = {metric.key: score.mean(scores, metric) for metric in task.metrics}
    assert means["fde_m"] == pytest.approx(6, abs=1e-4)
    assert (means["fde_1s_m"], means["fde_2s_m"]) == pytest.approx((2, 4), abs=1e-4)
    assert (means["ade_1s_m"], means["ade_2s_m"], means["ade_m"]) == pytest.approx((1.5, 2.5, 3.5), abs=1e-4)
    assert means["lateral_m"] == pytest.approx(6, abs=1e-4)
    assert means["miss_rate"] == 1
    turning = np.linalg.norm(constant_yaw_rate(found) - found.targets["path"], axis=-1)[:, -1].mean()
    assert means["yaw_rate_fde_m"] == pytest.approx(turning)


def test_a_fleet_is_written_as_it_is_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "_TOGETHER", 2)
    assert fleet.write(tmp_path / "fleet.parquet", ["US"], cars=3, frames=1, seed=1) == 24
    made = fleet.generate(["US"], cars=3, frames=1, seed=1).rows
    assert pq.read_table(tmp_path / "fleet.parquet").equals(made.cast(drives.SCHEMA))
    assert pq.ParquetFile(tmp_path / "fleet.parquet").num_row_groups == 2


def test_models_begin_near_straight_on_and_stay_alone(small):
    task = Camera({})
    found = drives.examples([small], test=False)
    model = task.model("conv", {"paths": 3}, seed=1).eval()
    paths, scores = model(*(torch.from_numpy(found.inputs[name][:4]) for name in ("image", "speed")))
    assert paths.shape == (4, 3, 6, 2)
    assert scores.shape == (4, 3)
    np.testing.assert_allclose(paths[:, 0, 0].detach(), straight(found)[:4, 0], atol=1.5)


def test_a_steady_turn_is_met_by_constant_yaw_rate():
    from fedfsd.task.task import Examples

    speed, rate = 8.0, 0.2
    t = drives.HORIZONS
    path = np.stack([speed / rate * np.sin(rate * t), speed / rate * (1 - np.cos(rate * t))], -1)[None]
    column = lambda value: np.full((1, 1), value, np.float32)  # noqa: E731
    targets = {"path": path, "speed": column(speed), "yaw_rate": column(rate)}
    examples = Examples(("a",), np.zeros(1, np.int64), {}, targets)
    np.testing.assert_allclose(constant_yaw_rate(examples), path, atol=1e-4)


def test_unknown_options_and_models_are_refused():
    with pytest.raises(ConfigError, match=r"task\.options\.x"):
        Camera({"x": 1})
    with pytest.raises(ConfigError, match=r"model\.name"):
        Camera({}).model("mlp", {}, seed=1)
    with pytest.raises(ConfigError, match=r"model\.options\.path"):
        Camera({}).model("conv", {"path": 2}, seed=1)


def test_a_table_of_tracks_is_none_of_frames(drives_path):
    with pytest.raises(DataError, match="column image, speed"):
        Camera({}).tables(drives_path)


@pytest.mark.slow
def test_a_private_run_on_frames_reports_and_verifies(small, tmp_path):
    table.write(small, tmp_path / "fleet.parquet", schema=drives.SCHEMA)
    experiment = {
        "name": "frames",
        "task": {"name": "camera"},
        "data": {"path": str(tmp_path / "fleet.parquet")},
        "model": {"name": "conv", "witness_size": 512},
        "pretraining": {"path": "none"},
        "privacy": {"target_epsilon": 4.0, "target_delta": 1e-3, "windows_per_vehicle": 2},
        "training": {"num_rounds": 2, "device": "cpu"},
    }
    run = fedfsd.simulate(experiment, output=tmp_path / "run")
    assert run.metrics["regions"]["EU"]["fde_m"] > 0
    assert run.metrics["regions"]["SG"]["straight_on_fde_m"] > 0
    page = run.report.read_text(encoding="utf-8")
    assert "one camera model" in page
    assert "<image" in (run.path / "figures" / "examples.svg").read_text(encoding="utf-8")
    bundles = sorted((run.path / "bundles").glob("*.zip"))
    evidence = load(bundles, receipts=run.path / "receipts.json", trust=run.path / "trust.keys")
    report = verify(evidence)
    assert report.headline == "holds"
    said = json.dumps(statement(evidence, report))
    assert "a person whom several cars filmed is not protected as a person" in said
    assert {one["kind"] for one in run.metrics["pooled"]["by_kind"]} >= {"straight", "day"}


@pytest.mark.skipif(not KITTI.exists(), reason="the real frames are not here")
def test_real_frames_are_read(tmp_path):
    """One real car, whose recordings are on both sides of the split: left out until it is on one."""
    (whole,) = drives.tables(str(KITTI))
    assert [fault.name for fault in whole.faults] == ["both-sides"]
    rows = pq.read_table(KITTI)
    rows = rows.set_column(rows.column_names.index("test"), "test", pa.array([False] * rows.num_rows))
    pq.write_table(rows, tmp_path / "kitti.parquet")
    found = drives.examples(drives.tables(str(tmp_path / "kitti.parquet")), test=False)
    assert len(found) > 500
    task = Camera({})
    assert 0.3 < score.mean(task.baseline_scores(found), task.metrics[0]) < 8


def test_the_check_knows_a_table_of_frames_by_its_columns(small, tmp_path):
    table.write(small, tmp_path / "fleet.parquet", schema=drives.SCHEMA)
    for path in (tmp_path / "fleet.parquet", tmp_path):
        said = check(str(path)).text
        assert said.startswith("note: faces-and-plates in EU, SG\n")
        assert "error" not in said
        assert "warning" not in said
        assert "EU: N = " in said
