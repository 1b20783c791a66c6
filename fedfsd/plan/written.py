"""How a plan is written: every format of its document beside the one shape that it has in memory.

Format 1 knows one task, motion forecasting, whose options stand under ``window``, and one mechanism, the
same Gaussian in every round, whose ``noise_multiplier`` stands among a region's constants. Format 2 names the
task under ``task`` and any other mechanism of a region under ``mechanism``, in the place of
``noise_multiplier``. Format 3 names under ``rounds`` of a region those in which it is asked, where it is not
asked in all, and says where its windows are ``packed`` and how many ``canaries`` it has; under
``model.backbone`` it names what of the model is not trained, and under ``precision`` what models compute in,
where that is not float32. Format 4 has the strategy ``moments``, whose first round releases moments instead
of gradients. A new plan is written in the oldest format that can hold it, so that regions of earlier releases
can take part; a plan that was read keeps the format in which it came, and with it its hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedfsd.config.load import Frozen
from fedfsd.formats import demand

FORECASTING, FLOAT32, MOMENTS = "forecasting", "float32", "moments"
_KINDS = ("noise_multiplier", "mechanism")
"""Of a region: one of the two is there, and names the kind of noise."""
_LATER: Mapping[str, Any] = {"rounds": None, "packed": False, "canaries": 0}
"""Of a region: what format 3 added, and what its absence means."""
_ABSENT: Mapping[str, Any] = {**dict.fromkeys(_KINDS), **_LATER}
"""Of a region: not written where it has this value."""


class Window(Frozen):
    """The options of motion forecasting as format 1 writes them (seconds)."""

    history_seconds: Annotated[float, Field(gt=0, le=60)]
    future_seconds: Annotated[float, Field(gt=0, le=60)]
    period_seconds: Annotated[float, Field(ge=0.01, le=60)]


def oldest(fields: Mapping[str, Any]) -> int:
    """The oldest format that can hold a plan of these fields."""
    if fields.get("strategy") == MOMENTS:
        return 4
    if fields["model"].get("backbone") is not None or fields.get("precision", FLOAT32) != FLOAT32:
        return 3
    task = fields["task"]
    options = task["options"] if task["name"] == FORECASTING else {}
    flat = all(region.get("mechanism") is None for region in fields["regions"].values())
    if any(
        region.get(key, default) != default
        for region in fields["regions"].values()
        for key, default in _LATER.items()
    ):
        return 3
    return 1 if flat and options.keys() == Window.model_fields.keys() else 2


def document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a plan with these fields, in the format that it names."""
    written = dict(fields)
    written["regions"] = {
        name: {key: value for key, value in region.items() if key not in _ABSENT or value != _ABSENT[key]}
        for name, region in fields["regions"].items()
    }
    if written["precision"] == FLOAT32:
        del written["precision"]
    if written["model"]["backbone"] is None:
        written["model"] = {key: value for key, value in written["model"].items() if key != "backbone"}
    if written["format"] == 1:
        written["window"] = written.pop("task")["options"]
    return written


def fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the plan in ``document``.

    Raises:
        FormatError: a format that this release does not read.
        ValidationError: a document of format 1 whose window is none.
    """
    found = dict(document)
    if demand("plan", found.get("format")) == 1:
        window = Window.model_validate(found.pop("window", None))
        found["task"] = {"name": FORECASTING, "options": window.model_dump()}
    return found
