"""ApolloScape trajectory prediction, text: one line an object and frame, two frames a second.

Fields: frame_id object_id object_type position_x position_y position_z object_length
object_width object_height heading. Types: 1 small vehicle, 2 big vehicle (3 pedestrian,
4 motor- or bicyclist, told apart by nothing, 5 other: left out). Source: apolloscape.auto/trajectory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedfsd.drive.reader import columns
from fedfsd.drive.reader.drive import Drive, Options, Reader, bare, central_differences, encoded
from fedfsd.drive.reader.mapping import Columns, Mapping, Units

FIELDS = ("frame", "object", "type", "x", "y", "z", "length", "width", "height", "heading")
OTHERS = {"type 3": "type pedestrian", "type 4": "type motor- or bicyclist", "type 5": "type other"}
HZ = 2.0
MAPPING = Mapping(
    columns=Columns(
        vehicle="object",
        time="frame",
        type="type",
        x="x",
        y="y",
        heading="heading",
        length="length",
        width="width",
    ),
    units=Units(time="frame"),
    types={"1": "car", "2": "truck_bus"},
    hz=HZ,
)


def read(path: Path, options: Options) -> Iterator[Drive]:
    """Read one ``result_*.txt`` of any size.

    Velocities are central differences within runs without a missing frame. The heading is passed on as
    annotated (rad); it often disagrees with the motion, which ``fedfsd data check`` reports.
    """
    stem = Path(bare(path.name)).stem
    recording = options.recording.removesuffix(stem) + stem.removeprefix("result_").removesuffix("_frame")
    gap = 1.5 / (options.hz or HZ)
    for each in columns.read(path, replace(options, recording=recording), MAPPING, names=FIELDS):
        owner, t = np.asarray(encoded(each.vehicle).indices), each.columns["t"]
        speeds = {
            f"v{axis}": central_differences(owner, t, each.columns[axis], max_gap_seconds=gap)
            for axis in "xy"
        }
        left_out = tuple(replace(one, why=OTHERS.get(one.why, one.why)) for one in each.left_out)
        yield replace(each, columns=each.columns | speeds, left_out=left_out)


READER = Reader(
    read=read,
    files="*.txt",
    about="ApolloScape trajectories (text, 2 Hz)",
    download="apolloscape.auto/trajectory.html: prediction_train.zip",
    licence="none stated with the data; the project calls itself research-oriented",
)
