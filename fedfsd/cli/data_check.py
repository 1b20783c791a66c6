"""``fedfsd data check``: what the recordings get wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.errors import NotReadyError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.drive.check import Finding

Path = Annotated[str, typer.Argument(metavar="PATH")]
_SHOWN = 5  # recordings by name in the text; --json has them all


def check(
    path: Path,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 4 on an error or a warning; notes pass.")
    ] = False,
    _json: Json = False,
) -> Answer:
    """Report defects, with counts and fixes.

    Nothing is repaired. PATH is a table, a folder of tables, or "embedded".
    """
    from fedfsd.drive import source
    from fedfsd.drive.check import check as work

    found = work(source.tables(path))
    grave = any(one.severity != "note" for one in found)
    text = [
        _text(list(alike)) for _, alike in groupby(found, key=lambda one: (one.name, one.region, one.source))
    ]
    return Answer(
        {"path": path, "findings": [asdict(one) for one in found]},
        "\n".join(text) or f"{plain(path)}: nothing found",
        NotReadyError.exit_code if strict and grave else 0,
    )


def _text(alike: list[Finding]) -> str:
    """One defect of one source: the head, its recordings, the fix (one for all where they agree)."""
    first, fixes = alike[0], {one.fix for one in alike}
    worst = sorted(alike, key=lambda one: -one.count)
    lines = [f"{first.severity}: {plain(first.name)} in {plain(first.region)}, {plain(first.source)}"]
    for one in worst[:_SHOWN]:
        place = "" if one.recording is None else f" in {plain(one.recording)}"
        fix = f"; fix: {plain(one.fix)}" if len(fixes) > 1 else ""
        lines.append(f"  {one.count} of {one.total} {one.unit}{place}{fix}")
    if len(alike) > _SHOWN:
        rest = sum(one.count for one in worst[_SHOWN:])
        lines.append(f"  {rest} {first.unit} in {len(alike) - _SHOWN} more places (--json names them)")
    if len(fixes) == 1:
        lines.append(f"  fix: {plain(first.fix)}")
    return "\n".join(lines)
