"""``fedfsd plan``: what a run would promise, cost and need, before any training."""

from __future__ import annotations

from typing import Any

from fedfsd.cli.answer import Answer, Json, plain, size, table
from fedfsd.cli.config import Experiment, Overrides
from fedfsd.cli.extra import extra


def plan(experiment: Experiment, overrides: Overrides = None, _json: Json = False) -> Answer:
    """Say what a run promises, costs and needs.

    Per region and before any training; EXPERIMENT is a TOML file.
    """
    from fedfsd.config.experiment import Experiment as Model
    from fedfsd.config.load import load

    loaded = load(Model, experiment, overrides=overrides or [])
    with extra("simulation"):
        from fedfsd.simulation.preview import preview

        found = preview(loaded)
    return Answer(found, _text(found))


def _text(found: dict[str, Any]) -> str:
    regions = found["regions"]
    head = [
        "region",
        "vehicles",
        "noise",
        "epsilon",
        "delta",
        "weight",
        "noise to signal",
        "memory",
        "policy",
    ]
    rows = [
        [
            name,
            f"{region['vehicles']}{' (counted)' if region['roster_counted'] else ''}",
            f"{region['noise_multiplier']:.3g}",
            region["epsilon"],
            None if region["delta"] is None else f"{region['delta']:g}",
            region["weight"],
            f"{region['noise_to_signal']:.3g}",
            size(region["memory_bytes"]),
            "accepts" if region["accepted"] else "refuses",
        ]
        for name, region in regions.items()
    ]
    clip = found["max_grad_norm"]
    text = [
        f"{plain(found['name'])}: {found['num_rounds']} rounds of {found['local_steps']} local steps,"
        f" {found['parameters']} parameters,"
        f" sample rate {found['sample_rate']:g}, {'no clipping' if clip is None else f'C = {clip:g}'}",
        table(head, rows),
        f"noise to signal after averaging the regions: {found['noise_to_signal']:.3g} a step",
        f"each round, each region: {size(found['bytes_in'])} in, {size(found['bytes_out'])} out",
    ]
    refusals = [
        f"{name} refuses: {plain(one)}" for name, region in regions.items() for one in region["objections"]
    ]
    alike: dict[str, list[str]] = {}
    for name, region in regions.items():
        alike.setdefault(region["statement"], []).append(name)
    statements = [f"{', '.join(names)}: {plain(one)}" for one, names in alike.items()]
    return "\n".join([*text, *refusals, "", *statements])
