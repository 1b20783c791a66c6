"""``fedfsd data import``: other people's recordings into one table."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from math import radians
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.data_generate import TaskOption
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.extra import extra
from fedfsd.errors import UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.drive.reader import Reader, Written
    from fedfsd.drive.table import LeftOut

_DOUBT = 0.7  # what --guess is less sure of than this, a person should look at
FRAMES = "comma, donkeycar, drives, kitti, kitti-raw, mcap, nuscenes, udacity"
_SHOWN = 20  # reasons in the text; --json has them all
FORMATS = (
    "apolloscape, argoverse2, bag, columns, commonroad, interaction, nuplan, nuscenes, scenarionet, waymo"
)


class IdentityOption(StrEnum):
    """What a vehicle key identifies."""

    physical = "physical"
    recording = "recording"


class OriginOption(StrEnum):
    """Where the drives come from."""

    recorded = "recorded"
    published = "published"
    synthetic = "synthetic"


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...")],
    output: Output,
    region: Annotated[str, typer.Option(metavar="REGION", help="The region that owns the drives.")],
    licence: Annotated[str, typer.Option(metavar="TEXT", help="The licence of the source.")],
    identity: Annotated[
        IdentityOption, typer.Option(help="Whether a key is one vehicle, or one vehicle in one recording.")
    ],
    origin: Annotated[OriginOption, typer.Option(help="Recorded drives can never be used in a rehearsal.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help=f"{FORMATS}, or a package's: fedfsd data formats says more. For the task camera: {FRAMES};"
            " recognised if left out.",
        ),
    ] = None,
    task: Annotated[TaskOption, typer.Option(help="What the table is for.")] = TaskOption.forecasting,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the data set, in each key; the format if left out."),
    ] = None,
    country: Annotated[str | None, typer.Option(metavar="NAME", help="For the reader of the table.")] = None,
    city: Annotated[str | None, typer.Option(metavar="NAME", help="Where the files do not say.")] = None,
    hz: Annotated[
        float | None, typer.Option(metavar="RATE", help="Frames a second, where the files do not say.")
    ] = None,
    city_only: Annotated[
        list[str] | None,
        typer.Option("--city-only", metavar="NAME", help="Only recordings of this city; may be repeated."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a bag, where several have the vehicle's motion.")
    ] = None,
    vehicle: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a bag or of frames: the vehicle that recorded; {folder} in it is the folder's name."
            " Without it all bags of a city, and all frames, are one vehicle's.",
        ),
    ] = None,
    wheelbase: Annotated[
        float | None, typer.Option(metavar="M", min=0.01, help="Of a car whose motion nothing measured.")
    ] = None,
    full_steering: Annotated[
        float | None,
        typer.Option(metavar="DEG", min=0.1, max=80, help="Of the same car, at a steering of 1."),
    ] = None,
    full_speed: Annotated[
        float | None, typer.Option(metavar="M/S", min=0.01, help="Of the same car, at full throttle.")
    ] = None,
    skip_unfit: Annotated[
        bool,
        typer.Option("--skip-unfit", help="Leave out files and rows that cannot be read, and count them."),
    ] = False,
    mapping: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="What the columns mean: a file, or the name of a shipped mapping."),
    ] = None,
    guess: Annotated[
        bool, typer.Option("--guess", help="Write a mapping of the first file to FILE (.toml) instead.")
    ] = False,
    _json: Json = False,
) -> Answer:
    """Read recordings into one table.

    PATH is a file, or a folder of files, of one source. What is left out is counted. The format
    "columns" is any table, CSV or Parquet, with a mapping of its columns. For the task camera a row is a
    frame with its pose; where nothing measured one, the car is driven again from its steering.
    """
    if (mapping or guess) and format != "columns":
        raise UsageError(
            "--guess" if guess else "--mapping",
            got=f"--format {format}",
            expected="--format columns",
            hint="other formats say themselves what their columns mean",
        )
    if vehicle is not None and (not vehicle or set("{}") & set(vehicle.replace("{folder}", ""))):
        raise UsageError(
            "--vehicle",
            got=repr(vehicle),
            expected="a name, in which {folder} is the name of the bag's folder",
            hint="for example --vehicle '{folder}'",
        )
    if guess:
        return _proposal(paths, output)
    if format is None and task != TaskOption.camera:
        raise UsageError(
            "--format", got="nothing", expected=FORMATS, hint="fedfsd data formats says what each reads"
        )
    checked(output, ".parquet")
    from pydantic import TypeAdapter, ValidationError

    from fedfsd.config.experiment import RegionName

    try:
        TypeAdapter(RegionName).validate_python(region)
    except ValidationError:
        raise UsageError(
            "--region", got=repr(region), expected="a short name such as CN or EU-west", hint="letters first"
        ) from None
    if task == TaskOption.camera:
        with extra("training"):
            from fedfsd.task.camera import reader
        made = reader.import_to(
            output,
            paths,
            format=format,
            facts=reader.Facts(region, licence, identity.value, origin.value, source),
            vehicle=vehicle,
            car=reader.Car(wheelbase, full_steering and radians(full_steering), full_speed),
            skip_unfit=skip_unfit,
        )
        return _answer(output, made, region, licence, identity, origin)
    assert format is not None
    from fedfsd.drive.reader import Facts, Options, import_to
    from fedfsd.drive.reader.mapping import read

    cities = tuple(name.lower() for name in city_only or ())
    facts = Facts(
        region,
        licence,
        identity.value,
        origin.value,
        source or format,
        country,
        city,
        cities,
        marked=source is None,
    )
    made = import_to(
        output,
        paths,
        format=format,
        facts=facts,
        options=Options("", hz=hz, scratch=output.absolute().parent, topic=topic, vehicle=vehicle),
        skip_unfit=skip_unfit,
        mapping=read(mapping) if mapping else None,
    )
    return _answer(output, made, region, licence, identity, origin)


def _answer(
    output: Path,
    made: Written,
    region: str,
    licence: str,
    identity: IdentityOption,
    origin: OriginOption,
) -> Answer:
    """What was written."""
    document = {
        "file": str(output),
        "rows": made.rows,
        "vehicles": made.vehicles,
        "recordings": made.recordings,
        "region": region,
        "licence": licence,
        "identity": identity.value,
        "origin": origin.value,
        "left_out": [asdict(each) for each in made.left_out],
    }
    text = (
        f"{plain(output)}: {made.vehicles} vehicles in {made.recordings} recordings, {made.rows} rows;"
        f" see what is wrong with them: fedfsd data check {plain(output)}"
    )
    return Answer(document, "\n".join([text, *_left_out(made.left_out)]))


def formats(_json: Json = False) -> Answer:
    """List the formats that fedfsd data import reads: what to download, and the data's licence.

    The licence is what the publisher states, for orientation: read theirs before you train.
    """
    from fedfsd.drive.reader import READERS

    document = [
        {
            "format": name,
            "about": each.about,
            "files": _patterns(each),
            "download": each.download,
            "licence": each.licence,
        }
        for name, each in READERS.items()
    ]
    lines = [
        f"{one['format']}: {one['about']}\n  files: {', '.join(one['files'])}\n  get: {one['download']}"
        f"\n  licence: {one['licence']}"
        for one in document
    ]
    return Answer(document, "\n".join(lines))


def _patterns(reader: Reader) -> list[str]:
    return [reader.files] if isinstance(reader.files, str) else list(reader.files)


def _proposal(paths: list[Path], output: Path) -> Answer:
    """A mapping for the first file, with how sure each line of it is."""
    checked(output, ".toml")
    from fedfsd.drive.reader import columns

    path, proposal = columns.guess(paths)
    output.write_text(proposal.text, encoding="utf-8")
    doubtful = [name for name, sure in proposal.sure.items() if sure < _DOUBT]
    text = f"{plain(output)}: a mapping for {plain(path)}, sure of its parts to {proposal.least:.0%} or more"
    if doubtful:
        text += f"; look at {', '.join(map(plain, doubtful))}"
    document = {"file": str(output), "of": str(path), "mapping": proposal.text, "sure": proposal.sure}
    return Answer(document, f"{text}\n{_shown(proposal.text)}")


def _shown(text: str) -> str:
    """The lines of a file with foreign names in it."""
    return "\n".join(plain(line) for line in text.splitlines())


def _left_out(left_out: tuple[LeftOut, ...]) -> list[str]:
    """What was left out, for people: a line a reason."""
    vehicles = sum(each.vehicles for each in left_out if each.why.startswith("type "))
    counts = {
        "rows": sum(each.rows for each in left_out),
        "vehicles by their type": vehicles,
        "files": sum(each.files for each in left_out),
    }
    lines = [
        f"  {plain(each.why)}" + (f": {each.rows} rows of {each.vehicles} vehicles" if each.rows else "")
        for each in left_out[:_SHOWN]
    ]
    if len(left_out) > _SHOWN:
        lines.append(f"  and for {len(left_out) - _SHOWN} more reasons (--json names them)")
    head = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return [f"left out: {head}", *lines] if lines else []
