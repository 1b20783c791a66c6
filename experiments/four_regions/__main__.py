"""``python -m experiments.four_regions``: climb the whole ladder and write what was found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.four_regions import cli, page, picture, result
from experiments.four_regions.cli import Given
from experiments.four_regions.rung import CONSTANT_VELOCITY, FEDERATED_8, LADDER, START, Rung
from experiments.four_regions.spent import spent
from experiments.four_regions.study import Measured, measure, open_study
from fedfsd.errors import UsageError

HERE = Path(__file__).parent


def climb(given: Given) -> None:
    """Run what is not complete in the output folder, then write results.csv, ladder.svg, ladder.md there.

    With ``publish`` also into this folder (generated traffic: embedded/) and its README.
    """
    if given.publish and (given.overrides or set(given.rungs) != {rung.name for rung in LADDER}):
        raise UsageError(
            "--publish", got="a part of the study", expected="all of it", hint="leave --set and --rungs out"
        )
    wanted = {*given.rungs, *(rung.name for rung in (CONSTANT_VELOCITY, START, FEDERATED_8))}
    study = open_study(given.data, given.overrides, given.output)
    measured: dict[Rung, dict[int, Measured]] = {}
    for rung in LADDER:
        if rung.name in wanted:
            measured[rung] = {}
            for seed in given.seeds if rung.seeded else given.seeds[:1]:
                print(f"{rung.title}, seed {seed}", file=sys.stderr, flush=True)
                measured[rung][seed] = measure(study, rung, seed)
    cost = spent(study, [one.privacy for by_seed in measured.values() for one in by_seed.values()])
    rows = result.rows(study, measured, cost)
    lead, text = page.lead(rows, cost), f"{page.ladder_table(rows)}\n\n{page.verdict(rows)}"
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "ladder.md").write_text(f"{lead}\n\n{text}\n", encoding="utf-8")
    places = [given.output]
    if given.publish:
        embedded = given.data == "embedded"
        places.append(HERE / "embedded" if embedded else HERE)
        page.put(HERE / "README.md", "embedded" if embedded else "recordings", text)
        if not embedded:
            page.put(HERE / "README.md", "lead", lead)
    for place in places:
        place.mkdir(exist_ok=True)
        result.write(rows, place / "results.csv")
        (place / "ladder.svg").write_text(picture.ladder(rows), encoding="utf-8")
    print(f"{lead}\n\n{text}\n\n{given.output / 'results.csv'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.four_regions",
        description="The ladder per region: no learning, public start, alone, pooled, federated, private.",
    )
    given = cli.parse(parser, arguments, seeds=[1, 2, 3], rungs=[rung.name for rung in LADDER])
    return cli.answer(lambda: climb(given))


if __name__ == "__main__":
    raise SystemExit(main())
