"""Each plan of a ledger as one row of figures: the mechanism, its epsilon by three accountants, its fate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.chapter import Run
from fedfsd.audit.loss import rounds_of
from fedfsd.audit.words import said
from fedfsd.errors import FedfsdError
from fedfsd.mechanism import accountant


def plans(case: Case) -> list[dict[str, Any]]:
    """All plans in the order of their approval; no epsilon for a rehearsal or withheld evidence."""
    return [
        _row(run, claims=not case.withheld and not run.chapter.rehearsal and run.computed)
        for run in case.course.runs.values()
    ]


def _row(run: Run, *, claims: bool) -> dict[str, Any]:
    one, promise, event = run.entry, run.promise, run.entry.event
    return {
        "plan": one.plan,
        "entry": one.seq,
        "name": _text(one.document.get("name")),
        "model": said(run.terms.model, 200) if run.terms else None,
        "mode": run.terms.mode if run.terms else None,
        "data_set": said(run.grant.data_set),
        "recipient": said(one.recipient),
        "purpose": said(one.purpose),
        "rounds": one.rounds,
        "booked": len(run.reserves),
        "released": len(run.releases),
        "aborted": len(run.aborted),
        "settled": run.settled,
        "sample_rate": event.sample_rate,
        "noise_multiplier": event.least_noise,
        "noise": event.words,
        "max_grad_norm": event.max_grad_norm,
        "steps": event.steps,
        "unit": event.unit,
        "adjacency": event.adjacency,
        "roster": promise.roster if promise else None,
        "identity": promise.identity if promise else None,
        "windows_per_vehicle": promise.windows_per_vehicle if promise else None,
        "task": _task(one.document),
        "divisor": event.sample_rate * promise.roster if promise else None,
        "release_bytes": one.release_bytes,
        "key_commitment": one.key_commitment,
        "code": one.code,
        "version": said(one.version),
        "initial_sha256": _initial(one.document.get("model")),
        "backbone_sha256": _backbone(one.document.get("model")),
        "delta": promise.target_delta if promise else None,
        "epsilon_stated": promise.epsilon if promise else None,
        "epsilon_lifetime": run.chapter.epsilon(run.committed, run.grant) if claims else None,
        **(_epsilons(run) if claims else dict.fromkeys(_EPSILONS)),
    }


_EPSILONS = ("epsilon", "epsilon_prv", "epsilon_rdp", "interval")


def _epsilons(run: Run) -> dict[str, Any]:
    """PLD, PRV's interval and RDP of the whole plan; None where an accountant gives up."""
    found: dict[str, Any] = dict.fromkeys(_EPSILONS)
    if run.promise is None:
        return found
    delta = run.promise.target_delta
    events = rounds_of(run.entry.event.model_dump(), run.entry.rounds).events
    for name, work in (
        ("epsilon", lambda: accountant.epsilon_pld(events, delta)),
        ("epsilon_prv", lambda: accountant.epsilon_prv(events, delta)),
        ("epsilon_rdp", lambda: accountant.epsilon_rdp(events, delta)),
        ("interval", lambda: accountant.interval(events)),
    ):
        try:
            value = work()
        except FedfsdError:
            continue
        found[name] = (
            [value.low, value.estimate, value.high] if isinstance(value, accountant.Bounds) else value
        )
    return found


def _text(value: object) -> str | None:
    return said(value, 200) if isinstance(value, str) else None


def _task(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is trained and its plain options; format 1 of a plan knows motion forecasting alone."""
    task = document.get("task")
    if task is None and "window" in document:
        task = {"name": "forecasting", "options": document["window"]}
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        return None
    options = task.get("options")
    plain = {
        said(name): said(value) if isinstance(value, str) else value
        for name, value in (options.items() if isinstance(options, dict) else ())
        if isinstance(value, str | int | float)
    }
    return {"name": said(task["name"]), "options": plain}


def _backbone(value: object) -> str | None:
    """The hash of the frozen public weights; None where all of the model is trained."""
    frozen = value.get("backbone") if isinstance(value, dict) else None
    return _text(frozen.get("sha256")) if isinstance(frozen, dict) else None


def _initial(value: object) -> str | None:
    initial = value.get("initial_sha256") if isinstance(value, dict) else None
    return _text(initial)
