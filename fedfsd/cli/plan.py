"""``fedfsd plan``: what a run would promise, cost and need, before any training."""

from __future__ import annotations

from typing import Any

from fedfsd.cli.answer import Answer, Json, size, table, warned
from fedfsd.cli.config import Experiment, Overrides
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


def plan(experiment: Experiment, overrides: Overrides = None, _json: Json = False) -> Answer:
    """Show what a run guarantees, costs and needs.

    For each region, before any training. EXPERIMENT is a TOML file.
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
    unequal = len({region["local_steps"] for region in regions.values()}) > 1
    rows = [
        {
            "region": name,
            "vehicles": f"{region['vehicles']}{' (counted)' if region['roster_counted'] else ''}",
            "with a window": region["with_window"],
            "sigma": _sigma(region),
            **({"steps": region["local_steps"]} if unequal else {}),
            "C": None if region["max_grad_norm"] is None else f"{region['max_grad_norm']:.3g}",
            "epsilon": region["epsilon"],
            "charged": region["epsilon_lifetime"],
            "delta": None if region["delta"] is None else f"{region['delta']:g}",
            "weight": region["weight"],
            "noise to signal": f"{region['noise_to_signal']:.3g}",
            "memory": size(region["memory_bytes"]),
            "policy": "accepts" if region["accepted"] else "refuses",
        }
        for name, region in regions.items()
    ]
    text = [
        f"{plain(found['name'])}: {found['num_rounds']} rounds of {'up to ' if unequal else ''}"
        f"{found['local_steps']} local steps,"
        f" {found['parameters']} parameters{_frozen(found)}, sample rate {found['sample_rate']:g}",
        table(rows),
        "charged: what such a plan takes from a lifetime grant, under which later plans may follow results",
        f"noise to signal of one step, after averaging the regions: {found['noise_to_signal']:.3g}",
        *([found["enough"]] if found["enough"] else []),
        f"each round, each region: {size(found['bytes_in'])} in, {size(found['bytes_out'])} out",
    ]
    refusals = [
        f"{name} refuses: {plain(one)}" for name, region in regions.items() for one in region["objections"]
    ]
    saved = [region["noise_saved"] for region in regions.values() if region["noise_saved"] is not None]
    if saved:
        text.append(
            f"noise by round: at this epsilon and C {100 * min(saved):.0f} % less noise in the released "
            "model than the same noise in every round would leave"
        )
    warnings = [f"{name}: {one}" for name, region in regions.items() for one in region["warnings"]]
    alike: dict[str, list[str]] = {}
    for name, region in regions.items():
        alike.setdefault(region["statement"], []).append(name)
    if found["unnoticed"] is not None:
        text.append(found["unnoticed"])
    text += [
        f"{name}: round_seconds = 0 in its policy, so the time that training takes can be seen"
        for name, region in regions.items()
        if region["round_seconds"] == 0
    ]
    if found["crossing"] is not None:
        from fedfsd.mechanism.statement import Crossing

        text.append(Crossing(**found["crossing"]).sentence)
    statements = [f"{', '.join(names)}: {plain(one)}" for one, names in alike.items()]
    return "\n".join([warned("\n".join([*text, *refusals]), warnings), "", *statements])


def _sigma(region: dict[str, Any]) -> str:
    """The noise multiplier of the first and of the last round, or of all."""
    first, last = (f"{sigma:.3g}" for sigma in region["noise_ends"])
    return first if first == last else f"{first} to {last}"


def _frozen(found: dict[str, Any]) -> str:
    """What of the model is not trained, in brackets."""
    count = found["frozen_parameters"]
    return f" ({count} more frozen)" if count else ""
