"""``fedfsd data show``: a picture of the tracks of each region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.data_check import has_frames
from fedfsd.cli.data_generate import TaskOption
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


def show(
    path: Annotated[str, typer.Argument(metavar="PATH")],
    output: Output,
    task: Annotated[
        TaskOption | None, typer.Option(help="What the table is for; recognised by its columns if left out.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Draw the tracks of each region, or some frames of it.

    PATH is a table, a folder of tables, or "embedded"; the picture an SVG or PNG. Of camera drives, a sheet
    of frames with the path driven after each.
    """
    checked(output, ".svg", ".png")
    if task == TaskOption.camera or (task is None and has_frames(Path(path))):
        with extra("training"), extra("pictures"):
            from fedfsd.task.camera import drives
            from fedfsd.task.camera import picture as sheet

            sheet.draw(drives.tables(path), output)
        return Answer({"file": str(output)}, plain(output))
    from fedfsd.drive import source

    tables = source.tables(path)
    with extra("pictures"):
        from fedfsd.drive import picture

        picture.draw(tables, output)
    return Answer({"file": str(output)}, plain(output))
