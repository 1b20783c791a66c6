"""What the columns of somebody's table mean: a TOML file, so that nobody has to write Python to import it.

Shipped are those of public data sets (``shipped/*.toml``), which are examples too. ``propose`` makes one for
an unknown table from its header and its values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as Names
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from fedfsd.config.load import Frozen, load
from fedfsd.drive.reader.drive import USUAL_RATES
from fedfsd.errors import UsageError

TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "frame": 1.0, "iso": 1.0}
LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0, "ft": 0.3048}
SPEEDS = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704, "ft/s": 0.3048}
# Lengths of cars.
CAR_M = (3.4, 5.8)
_FOLDER = "shipped"


class Columns(Frozen):
    """The name of the column for each meaning; position is x and y, or latitude and longitude."""

    vehicle: str
    time: str
    x: str | None = None
    y: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    recording: str | None = None
    """Where one file has several recordings."""
    type: str | None = None
    vx: str | None = None
    vy: str | None = None
    speed: str | None = None
    """Along the heading; used where vx and vy are not given."""
    heading: str | None = None
    length: str | None = None
    width: str | None = None

    @model_validator(mode="after")
    def _one_position(self) -> Columns:
        plane, globe = (self.x, self.y), (self.latitude, self.longitude)
        if (None in plane) == (None in globe) or (None in plane and plane != (None, None)):
            raise ValueError("x and y, or latitude and longitude")
        return self


class Units(Frozen):
    """In what the columns are."""

    time: Literal["s", "ms", "us", "ns", "frame", "iso"] = "s"
    position: Literal["m", "cm", "mm", "km", "ft"] = "m"
    heading: Literal["rad", "deg"] = "rad"
    speed: Literal["m/s", "km/h", "mph", "ft/s"] = "m/s"
    size: Literal["m", "cm", "mm", "km", "ft"] = "m"


class Companion(Frozen):
    """A table beside each file, for columns that the file itself does not have."""

    file: str
    """Its name: {stem} is the file's without ending, {prefix} the part before the last underscore."""
    key: str | None = None
    """The column that both have; without one, the table has a single row for the whole file."""

    @model_validator(mode="after")
    def _stays_in_the_folder(self) -> Companion:
        try:
            fields = {field for _, field, _, _ in Formatter().parse(self.file) if field is not None}
        except ValueError:
            raise ValueError("file: a single { or }") from None
        if not fields <= {"stem", "prefix"}:
            raise ValueError("file: only {stem} and {prefix} in braces")
        if Path(self.file).name != self.file or self.file == "..":
            raise ValueError("file: a name beside the table, without folders")
        return self


class Mapping(Frozen):
    """A mapping file."""

    FORMAT: ClassVar[str | None] = "mapping"

    format: int = 1
    files: Annotated[tuple[str, ...], Field(strict=False)] = ("*.csv", "*.tsv", "*.parquet")
    """Patterns of the file names in a folder."""
    columns: Columns
    units: Units = Units()
    types: dict[str, str] = Field(default_factory=dict)
    """Values of the column type and what they are; others are left out, and counted."""
    type: str = "vehicle"
    """Of all vehicles, where there is no column."""
    hz: float | None = None
    hz_column: str | None = None
    """Frames a second, for time in frames: as a number, or the name of a column."""
    heading_from: Literal["x", "north"] = "x"
    """Where a heading of 0 points; from north (y) it turns clockwise, as a compass does."""
    y_down: bool = False
    """Whether y goes down, as in pictures."""
    position_at: Literal["centre", "upper-left"] = "centre"
    """What of the vehicle is at x, y: its centre, or the corner of its box along the axes."""
    projection: str | None = None
    """For latitude and longitude, such as EPSG:25832; the UTM zone of the file if left out."""
    vehicle_is_unique: bool = False
    """Whether a vehicle's value is its own in all files; else in one recording."""
    ego: str | None = None
    """The vehicle that carried the sensors."""
    companions: Annotated[tuple[Companion, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _corner_has_a_size(self) -> Mapping:
        if self.position_at == "upper-left" and not (self.columns.length and self.columns.width):
            raise ValueError("position_at upper-left needs the columns length and width")
        return self


def shipped() -> tuple[str, ...]:
    """Names of the mappings that come with the package."""
    folder = files(__package__) / _FOLDER
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir()))


def text(name: str) -> str:
    """The file of a shipped mapping."""
    return (files(__package__) / _FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def read(source: str | Path) -> Mapping:
    """The mapping in a file, or one of the shipped ones by its name.

    Raises:
        ConfigError: a key or a value that cannot be.
        UsageError: neither a file nor a shipped name.
    """
    if str(source) in shipped():
        return load(Mapping, Path(str(files(__package__) / _FOLDER / f"{source}.toml")))
    if not Path(source).is_file():
        raise UsageError(
            "--mapping",
            got=repr(str(source)),
            expected=f"a mapping file, or one of {', '.join(shipped())}",
            hint="let --guess propose one",
        )
    return load(Mapping, Path(source))


@dataclass(frozen=True)
class Proposal:
    """A mapping file as text, and how sure each line of it is: 1 is certain, 0 a toss."""

    text: str
    sure: dict[str, float]

    @property
    def least(self) -> float:
        """How sure the least certain part is."""
        return min(self.sure.values())


# Names that are usual for a meaning, without case and punctuation; the first are the surest.
_USUAL: dict[str, tuple[str, ...]] = {
    "vehicle": ("vehicleid", "trackid", "objectid", "carid", "agentid", "vehid", "trackuid", "vehicle", "id"),
    "time": ("timestamp", "time", "t", "globaltime", "epoch", "datetime", "frameid", "frame", "framenum"),
    "latitude": ("latitude", "lat", "gpslat"),
    "longitude": ("longitude", "lon", "lng", "long", "gpslon"),
    "x": ("x", "xcenter", "centerx", "posx", "positionx", "localx", "utmx", "easting", "east", "xm"),
    "y": ("y", "ycenter", "centery", "posy", "positiony", "localy", "utmy", "northing", "north", "ym"),
    "recording": (
        "recordingid",
        "recording",
        "sceneid",
        "scene",
        "scenarioid",
        "tripid",
        "drive",
        "location",
    ),
    "type": ("agenttype", "class", "vehicletype", "objecttype", "category", "type", "vclass", "label"),
    "vx": ("vx", "xvelocity", "velocityx", "velx", "speedx"),
    "vy": ("vy", "yvelocity", "velocityy", "vely", "speedy"),
    "speed": ("speed", "velocity", "vvel", "v", "vel"),
    "heading": ("heading", "yaw", "psi", "theta", "orientation", "course"),
    "length": ("length", "vehiclelength", "vlength", "len", "l"),
    "width": ("width", "vehiclewidth", "vwidth", "w"),
}
_SUFFIXES = ("ms", "us", "ns", "s", "rad", "deg", "m", "ft", "kmh", "mps", "kph", "mph")
_SUFFIX_UNITS = {
    "time": {"ms": "ms", "us": "us", "ns": "ns", "s": "s"},
    "heading": {"rad": "rad", "deg": "deg"},
    "speed": {"kmh": "km/h", "kph": "km/h", "mps": "m/s", "mph": "mph"},
    "position": {"ft": "ft", "m": "m"},
    "size": {"ft": "ft", "m": "m"},
}


def propose(header: list[str], values: Names[str, np.ndarray]) -> Proposal:
    """A mapping for a table with that header.

    Args:
        header: its columns.
        values: the first cells of each, as text.

    Raises:
        UsageError: nothing that could be vehicle, time and position.
    """
    found: dict[str, tuple[str, float]] = {}
    for meaning, names in _USUAL.items():
        taken = {column for column, _ in found.values()}
        candidates = [(_likeness(column, names), column) for column in header if column not in taken]
        score, column = max(candidates, default=(0.0, ""))
        if score > 0:
            found[meaning] = (column, score)
    if "latitude" in found and "longitude" in found:
        for meaning in ("x", "y"):
            found.pop(meaning, None)
    else:
        for meaning in ("latitude", "longitude"):
            found.pop(meaning, None)
    missing = [name for name in ("vehicle", "time") if name not in found]
    missing += [] if "latitude" in found else [name for name in ("x", "y") if name not in found]
    if missing:
        raise UsageError(
            "--guess",
            got=f"no column that could be {', '.join(missing)}",
            expected=f"one among {', '.join(header[:20])}",
            hint="write the mapping by hand; those shipped are examples",
        )
    if "vx" in found and "vy" in found:
        found.pop("speed", None)
    units = _units(found, values)
    sure = {name: score for name, (_, score) in found.items()}
    sure |= {f"units.{name}": score for name, (_, score) in units.items()}
    lines = ["format = 1", "", "[columns]"]
    lines += [f"{name} = {_quoted(column)}  # sure: {score:.0%}" for name, (column, score) in found.items()]
    lines += ["", "[units]"]
    lines += [f'{name} = "{unit}"  # sure: {score:.0%}' for name, (unit, score) in units.items()]
    if "type" in found:
        kinds = sorted({str(kind).strip().lower() for kind in values[found["type"][0]]} - {""})[:30]
        lines += ["", "# Every type in the first rows: delete what is no vehicle.", "[types]"]
        lines += [f"{_quoted(kind)} = {_quoted(kind)}" for kind in kinds]
        sure["types"] = 0.5
    if units["time"][0] == "frame":
        lines.insert(1, "hz = 25.0  # a guess: put the frames a second of the recording here")
        sure["hz"] = 0.0
    return Proposal("\n".join([*lines, ""]), sure)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _likeness(column: str, names: tuple[str, ...]) -> float:
    """1 for the most usual name, less for rarer ones and for those with a unit behind."""
    plain = _plain(column)
    stripped = [plain] + [
        plain.removesuffix(unit) for unit in _SUFFIXES if _plain(column.rpartition("_")[2]) == unit
    ]
    for cost, name in zip((0.0, 0.1), stripped, strict=False):
        if name in names:
            return 0.95 - cost - 0.3 * names.index(name) / len(names)
    return 0.0


def _units(
    found: Names[str, tuple[str, float]], values: Names[str, np.ndarray]
) -> dict[str, tuple[str, float]]:
    """The unit of each group of columns, by the names' ends or by the values, and how sure it is."""
    units: dict[str, tuple[str, float]] = {}
    for group, member in (("time", "time"), ("heading", "heading"), ("position", "x"), ("size", "length")):
        if member in found:
            known = _SUFFIX_UNITS[group].get(_plain(found[member][0].rpartition("_")[2]))
            units[group] = (known, 0.95) if known else ("m", 0.6)
    if "size" in units and units["size"][1] < 0.9:
        length = np.nanmedian(np.r_[np.nan, _numbers(values[found["length"][0]])])
        for unit in ("ft", "cm", "mm"):
            if CAR_M[0] <= length * LENGTHS[unit] <= CAR_M[1]:
                units["size"] = (unit, 0.8)
                if units.get("position", ("", 1))[1] < 0.9:
                    units["position"] = (unit, 0.5)
    speed = found.get("speed") or found.get("vx")
    if speed:
        known = _SUFFIX_UNITS["speed"].get(_plain(speed[0].rpartition("_")[2]))
        units["speed"] = (known, 0.95) if known else ("m/s", 0.6)
    if units["time"][1] < 0.9:
        units["time"] = _time_unit(found["time"][0], values[found["time"][0]], values[found["vehicle"][0]])
    if "heading" in units and units["heading"][1] < 0.9:
        beyond = np.nanmax(np.abs(_numbers(values[found["heading"][0]])), initial=0) > 2 * math.pi + 0.01
        units["heading"] = ("deg", 0.8) if beyond else ("rad", 0.6)
    return units


def _time_unit(name: str, cells: np.ndarray, vehicle: np.ndarray) -> tuple[str, float]:
    """By the step from row to row of one vehicle: the unit in which it is a usual frame rate."""
    times = _numbers(cells)
    if not np.isfinite(times).any():
        return "iso", 0.8
    owner = np.unique(vehicle, return_inverse=True)[1]
    order = np.lexsort((times, owner))
    steps = np.diff(times[order])
    steps = steps[(np.diff(owner[order]) == 0) & (steps > 0)]
    if not len(steps):
        return "s", 0.2
    step = float(np.median(steps))
    if "frame" in _plain(name):
        return "frame", 0.9
    fits = [
        unit
        for unit in ("s", "ms", "us", "ns")
        if USUAL_RATES[0] <= 1 / (step * TIMES[unit]) <= USUAL_RATES[1]
    ]
    return (fits[0], 0.85) if fits else ("s", 0.2)


def _numbers(cells: np.ndarray) -> np.ndarray:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    texts = [str(cell) for cell in cells]
    if not any("." in text for text in texts):  # a decimal comma, as in ``delimited.Cells.number``
        texts = [text.replace(",", ".") for text in texts]
    return np.array([number(text) for text in texts])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
