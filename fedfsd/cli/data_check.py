"""``fedfsd data check``: what the recordings get wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.errors import NotReadyError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.config.experiment import Task
    from fedfsd.drive.check import Finding
    from fedfsd.drive.table import Table
    from fedfsd.task.gather import Survey

_SHOWN = 5  # recordings by name in the text; --json has them all


def check(
    path: Annotated[str, typer.Argument(metavar="PATH")],
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 4 on an error or a warning; notes pass.")
    ] = False,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Count the windows of its task; if left out, of the table's kind."),
    ] = None,
    _json: Json = False,
) -> Answer:
    """Report defects and what can be trained on.

    Defects come with counts and fixes; nothing is repaired. For each region: N (training vehicles, as a
    policy's roster counts them), how many have a window, and what dropped the others. PATH is a table, a
    folder of tables, or "embedded".
    """
    from fedfsd.service.memory import give_back

    give_back(2**16)  # what one part of the recordings took is not kept for the next
    chosen = _chosen(path, experiment)
    names, found = _tracks(path) if chosen.name == "forecasting" else _of_task(path, chosen)
    surveys = _surveys(path, names, chosen)
    found += [_nothing(one) for one in surveys if not one.with_window]
    grave = any(one.severity != "note" for one in found)
    text = [
        _text(list(alike)) for _, alike in groupby(found, key=lambda one: (one.name, one.region, one.source))
    ]
    return Answer(
        {
            "path": path,
            "findings": [one.document() for one in found],
            "regions": {one.region: one.document() for one in surveys},
        },
        "\n".join(
            [*(text or [f"{plain(path)}: nothing found"]), *(line for one in surveys for line in _told(one))]
        ),
        NotReadyError.exit_code if strict and grave else 0,
    )


def _chosen(path: str, experiment: Path | None) -> Task:
    """The experiment's task; without one, that of tables with frames or of tracks."""
    from fedfsd.config.experiment import Experiment, Task
    from fedfsd.config.load import load

    if experiment is not None:
        return load(Experiment, experiment).task
    return Task(name="camera") if has_frames(Path(path)) else Task()


def has_frames(path: Path) -> bool:
    """Whether the table, or the first of a folder, has a column of frames."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(iter(sorted(path.glob("*.parquet"))), None) if path.is_dir() else path
    try:
        return file is not None and "image" in pq.read_schema(file).names
    except (pa.ArrowInvalid, OSError):
        return False  # what is wrong with the file is said when it is read


def _tracks(path: str) -> tuple[list[str], list[Finding]]:
    """The regions of a table of tracks, and its defects."""
    from fedfsd.drive import source
    from fedfsd.drive.check import check as work

    tables = source.looked(path)
    return sorted({name for one in tables for name in one.regions}), work(tables)


def _of_task(path: str, chosen: Task) -> tuple[list[str], list[Finding]]:
    """The same of another task's table, whose rows the task itself judges, by its counts or by ``check``."""
    from fedfsd.drive.check import ORDER, files

    with extra("training"):
        from fedfsd.task import registry

        task = registry.of(chosen.name, chosen.options)
    tables = task.tables(path)
    judge: Callable[[Sequence[Table]], list[Finding]] = getattr(task, "check", lambda _: [])
    found = sorted([*files(tables), *judge(tables)], key=lambda one: (ORDER[one.severity], one.name))
    return sorted({name for one in tables for name in one.regions}), found


def _surveys(path: str, regions: Sequence[str], chosen: Task) -> list[Survey]:
    """What each region can train on."""
    with extra("training"):
        from fedfsd.task import registry
        from fedfsd.task.gather import survey, tables_of

        task = registry.of(chosen.name, chosen.options)
    return [survey(task, tables_of(task, path, name), name) for name in regions]


def _nothing(survey: Survey) -> Finding:
    from fedfsd.drive.check import Finding

    count = survey.vehicles
    why = "; ".join(survey.reasons) or (
        "see its recordings" if count else "all of its vehicles are test vehicles"
    )
    fix = f"its budget would be spent on noise alone: {why}"
    return Finding("no-window", "error", survey.region, "", None, count, count, "vehicles", fix)


def _told(survey: Survey) -> list[str]:
    """A region's head line, and what was dropped."""
    head = (
        f"{survey.region}: N = {survey.vehicles} training vehicles, {survey.with_window} with a window, "
        f"{survey.windows} windows"
    )
    return [plain(head), *(f"  dropped: {plain(line)}" for line in survey.reasons)]


def _text(alike: list[Finding]) -> str:
    """One defect of one source: the head, its recordings, the fix (one for all where they agree)."""
    first, fixes = alike[0], {one.fix for one in alike}
    worst = sorted(alike, key=lambda one: -one.count)
    where = ", ".join(plain(part) for part in (first.region, first.source) if part)
    lines = [f"{first.severity}: {plain(first.name)} in {where}", f"  {first.what}"]
    for one in worst[:_SHOWN]:
        place = "" if one.recording is None else f" in {plain(one.recording)}"
        fix = f"; fix: {plain(one.fix)}" if len(fixes) > 1 else ""
        lines.append(f"  {one.count} of {one.total} {one.unit}{place}{fix}")
    if len(alike) > _SHOWN:
        rest = sum(one.count for one in worst[_SHOWN:])
        lines.append(f"  {rest} {first.unit} in {len(alike) - _SHOWN} more places (--json names them)")
    if len(fixes) == 1:
        lines.append(f"  fix: {plain(first.fix)}")
    lines.append(f"  page: {first.page}")
    return "\n".join(lines)
