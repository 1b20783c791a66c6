"""The kit that plants canaries in data: the data stay good, and whatever of them crosses is found."""

from pathlib import Path

import pytest
from border import crossing, recorder
from conftest import drives

from fedfsd.drive import table


@pytest.fixture
def planted(tmp_path: Path) -> tuple[table.Table, dict[bytes, str]]:
    path = tmp_path / "drives.parquet"
    table.write(drives({"EU": 12}), path)
    needles = crossing.plant(path)
    return table.read(path)[0], needles


def found(folder: Path, content: bytes, needles: dict[bytes, str]) -> list[str]:
    """What is found where ``content`` crossed in chunks of 100 bytes."""
    one = recorder.Recorder(folder)
    write = one.call("client", "/fedfsd.border.v1.Border/Send")
    for at in range(0, len(content), 100):
        part = content[at : at + 100]
        write("request", b"\x1a" + bytes([len(part)]) + part)
    one.close()
    return crossing.found(folder, needles)


def test_planted_data_are_read_as_before(planted):
    read, _ = planted
    assert read.licence == "CC0-1.0"
    names = read.rows["vehicle"].to_pylist()
    assert len(set(names)) == 12
    assert all(name.startswith(crossing.TEXT) for name in names)


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8"])
def test_a_column_that_crosses_in_chunks_is_found(planted, tmp_path: Path, kind: str):
    read, needles = planted
    for name in ("x", "y"):
        content = read.rows[name].to_numpy().astype(kind).tobytes()
        assert found(tmp_path / name, content, needles)


def test_other_columns_and_noise_are_not_mistaken(planted, tmp_path: Path):
    read, needles = planted
    content = b"".join(
        read.rows[name].to_numpy().tobytes() for name in ("t", "vx", "vy", "heading", "length")
    )
    assert found(tmp_path / "sink", content, needles) == []
