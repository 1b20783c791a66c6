"""Each thing that can be wrong with camera drives, planted into clean ones, is found and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fedfsd.cli.data_check import check as command
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.task.camera import check, drives

COUNT, PERIOD = 80, 0.1
RANDOM = np.random.default_rng(5)
WORLD = RANDOM.integers(0, 255, (48, 2000)).astype(np.float64)
RATE = 0.25 * np.sin(np.arange(COUNT) * PERIOD * 1.3) + 0.15 * np.sin(np.arange(COUNT) * PERIOD * 4)
HEADING = np.cumsum(RATE) * PERIOD
ALWAYS = {"faces-and-plates"}


def stored(array: np.ndarray, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def view(heading: float, number: int) -> bytes:
    """What a camera sees that looks along ``heading`` into a world of columns, 100 pixels a radian."""
    left = 1000 - heading * 100 + number * 1e-3
    places = left + np.arange(120)
    low = np.floor(places).astype(int)
    seen = WORLD[:, low] * (1 - places % 1) + WORLD[:, low + 1] * (places % 1)
    picture = np.stack([seen, seen * 0.9, seen * 0.8], axis=-1)
    return stored(picture.astype(np.uint8), "PNG")


VIEWS = [view(heading, number) for number, heading in enumerate(HEADING)]


def rows(key: str = "a", recording: str = "1", region: str = "DE") -> list[dict]:
    """A car that drives at 5 m/s along its headings, a frame at every pose."""
    x, y = (np.cumsum(5 * PERIOD * f(HEADING)) for f in (np.cos, np.sin))
    return [
        {
            "region": region,
            "source": "own",
            "recording": recording,
            "vehicle": key,
            "t": n * PERIOD,
            "image": VIEWS[n],
            "x": x[n],
            "y": y[n],
            "heading": HEADING[n],
            "speed": 5.0,
            "test": False,
        }
        for n in range(COUNT)
    ]


def found(every: list[dict], name: str = "") -> dict[str, check.Finding]:
    made = Table(pa.Table.from_pylist(every, drives.SCHEMA), "own", "physical", "recorded", name=name)
    return {one.name: one for one in check.check([made])}


def test_a_clean_drive_has_a_notice_alone():
    assert set(found(rows())) == ALWAYS


def test_every_finding_is_explained():
    text = (Path(__file__).parents[3] / "docs" / "camera.md").read_text(encoding="utf-8")
    assert [name for name in check.SAID if f"`{name}`" not in text] == []


DEEP = stored(RANDOM.integers(0, 60000, (48, 120)).astype(np.uint16), "PNG")
BLACK = stored(np.zeros((48, 120, 3), np.uint8))
GREY = stored(RANDOM.integers(0, 255, (48, 120)).astype(np.uint8), "PNG")
SMALL = stored(RANDOM.integers(0, 255, (64, 128, 3)).astype(np.uint8))
FLAT = stored(RANDOM.integers(0, 255, (10, 120, 3)).astype(np.uint8))
GIF = stored(RANDOM.integers(0, 255, (48, 120, 3)).astype(np.uint8), "GIF")


@pytest.mark.parametrize(
    ("name", "image", "severity"),
    [
        ("frame-unreadable", b"\xff\xd8\xff no frame", "error"),
        ("frame-unreadable", VIEWS[3][:200], "error"),
        ("frame-unreadable", b"\x89PNG\r\n\x1a\n" + b"\x00" * 2000, "error"),
        ("frame-unreadable", GIF, "error"),
        ("frame-16-bit", DEEP, "error"),
        ("frame-flat", FLAT, "error"),
        ("frame-size", SMALL, "warning"),
        ("frame-grey", GREY, "note"),
        ("frame-black", BLACK, "warning"),
        ("frame-frozen", VIEWS[2], "warning"),
        ("frame-outside", b"../secret.jpg", "error"),
        ("frame-outside", b"/etc/hostname", "error"),
        ("frame-outside", b"link.jpg", "error"),
        ("frame-outside", b"a\x00b", "error"),
        ("frame-unreadable", b"missing.jpg", "error"),
    ],
)
def test_one_frame_that_is_wrong_is_one_finding(name, image, severity, tmp_path):
    (tmp_path / "link.jpg").symlink_to("/etc/hostname")
    every = rows()
    every[3]["image"] = image
    seen = found(every, name=str(tmp_path / "table.parquet"))
    assert set(seen) == {name} | ALWAYS
    assert (seen[name].count, seen[name].total, seen[name].severity) == (1, COUNT, severity)


def test_a_bomb_is_named_and_never_decoded(monkeypatch):
    monkeypatch.setattr(drives, "MOST_PIXELS", 120 * 48)
    every = rows()
    every[3]["image"] = SMALL
    convert = Image.Image.convert

    def small(image: Image.Image, mode: str) -> Image.Image:
        assert image.size == (120, 48)
        return convert(image, mode)

    monkeypatch.setattr(Image.Image, "convert", small)
    assert found(every)["frame-bomb"].count == 1


def test_a_path_beside_the_table_is_a_frame(tmp_path):
    (tmp_path / "3.png").write_bytes(VIEWS[3])
    every = rows()
    every[3]["image"] = b"3.png"
    assert set(found(every, name=str(tmp_path / "table.parquet"))) == ALWAYS


def lagged(every: list[dict], rows_late: int) -> list[dict]:
    for one, other in zip(every[rows_late:], VIEWS, strict=False):
        one["image"] = other
    return every[rows_late:]


def test_frames_that_come_late_are_told_with_their_lag():
    seen = found(lagged(rows(), 5))
    assert set(seen) == {"frame-lag"} | ALWAYS
    assert seen["frame-lag"].fix.startswith("-0.50 s")


def test_a_heading_against_the_picture_is_told():
    every = rows()
    for one in every:
        one["heading"], one["y"] = -one["heading"], -one["y"]
    assert set(found(every)) == {"yaw-sign"} | ALWAYS


def test_a_pose_that_jumps_is_told():
    every = rows()
    every[40]["x"] += 30
    assert found(every)["pose-jump"].count == 2


def test_a_path_that_begins_behind_the_car_is_told():
    every = rows()
    for one in every:
        one["heading"] += np.pi
    assert found(every)["label-in-past"].count > 40


def test_a_car_in_two_regions_one_without_frames_and_one_under_two_keys():
    bare = [{**one, "image": None} for one in rows("c", "3")]
    seen = found([*rows(), *rows("a", "2", "FR"), *rows("b", "4"), *bare])
    assert set(seen) == ALWAYS | {
        "car-two-regions",
        "car-without-frames",
        "frame-repeated",
        "frame-two-keys",
    }
    assert (seen["frame-repeated"].count, seen["frame-two-keys"].count) == (COUNT, COUNT)
    assert (seen["car-two-regions"].count, seen["car-without-frames"].count) == (1, 1)
    assert seen["car-two-regions"].region == "DE, FR"


def test_the_command_says_it(tmp_path):
    every = rows()
    every[3]["image"] = b"../secret.jpg"
    made = Table(pa.Table.from_pylist(every, drives.SCHEMA), "own", "physical", "recorded")
    table.write(made, tmp_path / "drives.parquet", schema=drives.SCHEMA)
    answer = command(str(tmp_path / "drives.parquet"), strict=True)
    assert answer.exit_code == 4
    what = "a path that leaves the table's folder or follows a link"
    assert f"error: frame-outside in DE, own\n  {what}\n  1 of 80 frames in 1" in answer.text
    assert "1 frames whose path leaves the table's folder or follows a link" in answer.text


def test_16_bits_of_colour_and_strips_are_findings(tmp_path):
    """A decoder would drop half of the bits, and make a strip of one column as high as memory goes."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\xa0\0\0\0\x40\x10\x02"
    assert drives.deep(header)
    assert drives.opened(stored(np.zeros((100, 10, 3), np.uint8), "PNG")) is None
    assert drives.decode(stored(np.zeros((3000, 1, 3), np.uint8), "PNG")) is None
    assert check._profile(np.zeros((1, 1, 3), np.uint8)).shape == (160,)
