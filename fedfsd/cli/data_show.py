"""``fedfsd data show``: a picture of the tracks of each region."""

from __future__ import annotations

from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


def show(path: Annotated[str, typer.Argument(metavar="PATH")], output: Output, _json: Json = False) -> Answer:
    """Draw the tracks of each region.

    PATH is a table, a folder of tables, or "embedded"; the picture an SVG or PNG.
    """
    checked(output, ".svg", ".png")
    from fedfsd.drive import source

    tables = source.tables(path)
    with extra("pictures"):
        from fedfsd.drive import picture

        picture.draw(tables, output)
    return Answer({"file": str(output)}, plain(output))
