"""``python -m experiments.four_regions.fresh --data TABLES``: recipe.toml, once, on untouched vehicles.

One run for each promise, and one without noise. Since every setting was chosen on generated traffic
(``choose``), nothing but a rung's own run was ever made on these vehicles in order to get that rung: its
epsilon_search is its epsilon. The rungs share their training vehicles; what all of them compose to is said
beside the table. On the development data, which study.toml knows, epsilon_search is what was spent there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.four_regions import cli, page, picture, result
from experiments.four_regions.result import MEAN, Row
from experiments.four_regions.rung import CONSTANT_VELOCITY, LADDER, START, Rung
from experiments.four_regions.spent import spent
from experiments.four_regions.study import Measured, Study, measure, open_study
from fedfsd.errors import NotReadyError

HERE = Path(__file__).parent
RECIPE = HERE / "recipe.toml"
RUNGS = (CONSTANT_VELOCITY, START, *(rung for rung in LADDER if rung.kind == "federated"))


ALWAYS = (CONSTANT_VELOCITY, START, next(rung for rung in RUNGS if rung.name == "federated_eps1"))


def recipe(path: Path) -> dict[str, dict[str, Any]]:
    """What ``choose`` wrote. NotReadyError where there is nothing."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise NotReadyError(
            str(path),
            got="no recipe",
            expected="the file that the search on generated traffic writes",
            hint="python -m experiments.four_regions.choose --publish",
        ) from None


def overrides(chosen: Mapping[str, Mapping[str, Any]], rung: Rung) -> list[str]:
    """The settings of one rung, as ``--set`` takes them."""
    settings = dict(chosen["recipe"])
    if rung.trains:
        promise = f"{rung.epsilon:g}" if rung.private else "none"
        settings["training.learning_rate"] = chosen["learning_rate"][promise]
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def rows(
    study: Study, chosen: Mapping[str, Mapping[str, Any]], rungs: Sequence[Rung], seeds: Sequence[int]
) -> tuple[list[Row], float | None]:
    """A run a rung and seed, with epsilon_search = epsilon; and what all private runs compose to.

    On vehicles on which more was tried, with what all of that composes to in each row; then None.
    """
    measured: dict[Rung, dict[int, Measured]] = {}
    for rung in rungs:
        print(rung.title, file=sys.stderr, flush=True)
        measured[rung] = {
            seed: measure(study, rung, seed, overrides=overrides(chosen, rung))
            for seed in (seeds if rung.seeded else seeds[:1])
        }
    cost = spent(study, [one.privacy for by_seed in measured.values() for one in by_seed.values()])
    found = result.rows(study, measured, cost)
    together = max(one.epsilon for one in cost.values())
    if any(one.search or one.before for one in cost.values()):
        return found, None
    return [replace(row, epsilon_search=row.epsilon) for row in found], together


def verdict(found: Sequence[Row]) -> str:
    """Epsilon 1 against each region's own start and against constant velocity."""
    means = {(row.rung, row.region): row for row in found if row.seed == MEAN}
    parts = []
    for region in dict.fromkeys(row.region for row in found):
        mine = means["federated_eps1", region]
        start, simple = (means[rung.name, region] for rung in (START, CONSTANT_VELOCITY))
        parts.append(f"{region} {page.change(mine, start)} ({page.change(mine, simple)})")
    said = ", ".join(parts)
    return f"At epsilon 1, FDE against the region's own public start (against constant velocity): {said}."


def lead(found: Sequence[Row], together: float) -> str:
    """What was promised, to whom, and what was not."""
    mine = next(row for row in found if row.rung == "federated_eps1")
    return (
        f"Every setting was chosen on generated traffic alone; then each rung was run once on these "
        f"vehicles. At epsilon 1 **epsilon_search = epsilon = {page.upwards(mine.epsilon_search)}**. A "
        f"region that adopts one rung pays that rung's epsilon. On these very recordings all private rungs "
        f"were run, which compose to {page.upwards(together)}, and one rung without noise, which promises "
        f"nothing."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.four_regions.fresh",
        description="The chosen recipe, one run a rung, on vehicles that nothing was tried on.",
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what choose wrote")
    parsed, _ = parser.parse_known_args(arguments)
    given = cli.parse(parser, arguments, seeds=[1], rungs=[rung.name for rung in RUNGS])

    def work() -> None:
        rungs = [rung for rung in RUNGS if rung.name in given.rungs or rung in ALWAYS]
        study = open_study(given.data, given.overrides, given.output)
        found, together = rows(study, recipe(parsed.recipe), rungs, given.seeds)
        said = [] if together is None else [lead(found, together)]
        text = "\n\n".join([*said, page.ladder_table(found), verdict(found)])
        name = "fresh" if parsed.recipe == RECIPE else parsed.recipe.stem
        for place in (given.output, HERE / name) if given.publish else (given.output,):
            place.mkdir(parents=True, exist_ok=True)
            result.write(found, place / "results.csv")
            (place / "ladder.md").write_text(f"{text}\n", encoding="utf-8")
            (place / "ladder.svg").write_text(picture.ladder(found), encoding="utf-8")
        if given.publish:
            page.put(HERE / "README.md", name, text)
        print(text)

    return cli.answer(work)


if __name__ == "__main__":
    raise SystemExit(main())
