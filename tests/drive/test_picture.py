"""The picture of drives: what stands in it, that it is the same each time, and what it refuses."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fedfsd.drive import picture, table
from fedfsd.errors import DataError, NotReadyError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def drives(region: str, vehicles: int, *, recording: str = "r1", city: str = "", licence="CC0", **changes):
    t = np.arange(20) * 0.5
    columns = {name: [] for name in (*table.TEXT_COLUMNS, *table.NUMBER_COLUMNS, "city")}
    for car in range(vehicles):
        values = {
            "region": region,
            "source": "trips",
            "recording": recording,
            "vehicle": f"{region}/{recording}/{car}",
            "type": "car",
            "t": t,
            "x": 8 * t,
            "y": 4.0 * car + 0 * t,
            "vx": 8.0,
            "vy": 0.0,
            "heading": 0.0,
            "length": 4.5,
            "width": 1.8,
            "hz": 2.0,
            "city": city,
        } | changes
        for name in columns:
            columns[name].append(np.full(len(t), values[name]))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return table.of_rows(joined, licence=licence, identity="physical", origin="synthetic")


def texts(path: Path) -> list[str]:
    return [node.text or "" for node in ElementTree.parse(path).iter() if node.tag.endswith("}text")]


def test_the_picture_says_what_it_shows(tmp_path):
    tables = [drives("EU", 9), drives("US", 3, licence="CC-BY-4.0"), drives("US", 2, recording="r2")]
    picture.draw(tables, tmp_path / "a.svg")
    said = "\n".join(texts(tmp_path / "a.svg"))
    testing = sum(table.split_is_test(f"EU/r1/{car}") for car in range(9))
    assert f"EU: 9 vehicles ({testing} to test) in 1 recording " in said
    assert "US: 5 vehicles" in said
    assert "in 2 recordings" in said
    assert "licence CC-BY-4.0 / CC0" in said
    assert "identity physical" in said
    assert "origin synthetic" in said
    assert said.count(" m\n") == 3, "a scale bar in each panel"
    source = (tmp_path / "a.svg").read_text()
    assert picture.TRAINING in source
    assert picture.TEST in source
    assert [file.name for file in tmp_path.iterdir()] == ["a.svg"], "nothing half-written stays"


def test_the_same_tables_give_the_same_bytes(tmp_path):
    tables = [drives("EU", 4)]
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        picture.draw(tables, tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_densest_recording_of_each_city_comes_first(tmp_path):
    tables = [
        drives("EU", 9, recording="a1", city="Oslo"),
        drives("EU", 8, recording="a2", city="Oslo"),
        drives("EU", 7, recording="a3", city="Oslo"),
        drives("EU", 2, recording="b1", city="Bergen"),
    ]
    picture.draw(tables, tmp_path / "a.svg")
    panels = [text for text in texts(tmp_path / "a.svg") if text.startswith(("Oslo", "Bergen"))]
    assert [panel.split()[-1] for panel in panels] == ["a1", "b1", "a2"]


def test_a_region_in_which_nothing_moves_or_nothing_is_finite_is_drawn(tmp_path):
    picture.draw([drives("EU", 2, x=0.0), drives("US", 2, x=np.nan)], tmp_path / "a.svg")
    assert "US: 2 vehicles" in "\n".join(texts(tmp_path / "a.svg"))


def test_names_are_drawn_as_they_are_and_never_as_markup(tmp_path):
    name = "<script>$x_1$</script>\x07 \u4e2d" + "y" * 300
    picture.draw([drives("EU", 1, recording=name)], tmp_path / "a.svg")
    (panel,) = [text for text in texts(tmp_path / "a.svg") if "script" in text]
    assert "<script>$x_1$</script>\\x07 \u4e2d" in panel
    assert len(panel) <= 60


def test_many_regions_are_told_of_not_drawn(tmp_path):
    picture.draw([drives(f"R{number:02}", 1) for number in range(10)], tmp_path / "a.svg")
    assert "Drives of 10 regions, 2 more not shown" in texts(tmp_path / "a.svg")


def test_what_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        picture.draw([drives("EU", 1)], tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no rows"):
        picture.draw([], tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotReadyError, match=r'pip install "\.\[pictures\]"'):
        picture.draw([drives("EU", 1)], tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings are not on this machine")
def test_the_real_recordings(tmp_path):
    picture.draw(table.read(SHARED), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 100_000
