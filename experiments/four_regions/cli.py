"""What the study's two commands share: their arguments, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedfsd.errors import FedfsdError


@dataclass(frozen=True)
class Given:
    """The arguments; ``overrides`` without the data path."""

    data: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    output: Path
    publish: bool
    rungs: tuple[str, ...]


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    seeds: Sequence[int],
    rungs: Sequence[str] = (),
    study: str = "four_regions",
) -> Given:
    """Add the arguments to ``parser`` and read them; ``--set data.path=`` counts as ``--data``."""
    parser.add_argument("--data", default="embedded", help="a table, a folder of tables, or embedded")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), metavar="SEED")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help=f"runs/{study}/NAME if left out; continued if there",
    )
    parser.add_argument("--publish", action="store_true", help="also write into the study's own folder")
    if rungs:
        parser.add_argument("--rungs", nargs="+", choices=rungs, default=list(rungs), metavar="RUNG")
    given = parser.parse_args(arguments)
    data = given.data
    for text in given.set:
        if text.startswith("data.path="):
            data = text.partition("=")[2].strip('"')
    name = "embedded" if data == "embedded" else Path(data).resolve().stem
    return Given(
        data=data,
        overrides=tuple(text for text in given.set if not text.startswith("data.path=")),
        seeds=tuple(dict.fromkeys(given.seeds)),
        output=given.output or Path("runs") / study / name,
        publish=given.publish,
        rungs=tuple(given.rungs) if rungs else (),
    )


def answer(work: Callable[[], None]) -> int:
    """Do ``work``; a refusal becomes one line and its exit code."""
    try:
        work()
    except FedfsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
