"""Fields 1 to 8 of a privacy report: what is promised, about whom, and by which mechanism.

Each function is one field: what follows from the bundle, what somebody declares, and what nobody says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from fedfsd.audit.crossing import RECEIVED, UNDELIVERED
from fedfsd.audit.fact import Facts, Sources
from fedfsd.audit.statement import GENERAL, IDENTITIES
from fedfsd.audit.words import counted, listed
from fedfsd.ledger.entry import Grant


def claim(given: Sources) -> Facts:
    """Epsilon, delta, unit, adjacency and horizon, in sentences."""
    for one in given.data_sets:
        where = f", {one['data_set']}" if len(given.data_sets) > 1 else ""
        for sentence in one["sentences"]:
            label, text = f"{sentence['about']}{where}", sentence["text"]
            declared = sentence["declared"]
            yield given.declared(label, text, "ledger") if declared else given.recomputed(label, text)
    if not given.data_sets:
        why = given.case.withheld or "there is no grant"
        yield given.recomputed("claim", f"No guarantee is stated: {why}.")


def trust_model(given: Sources) -> Facts:
    """Who is trusted with what, and who may see everything that crosses."""
    yield given.by_program("trust model", GENERAL["Trust model"])
    genesis = given.case.course.ledger.genesis
    yield given.declared("simulated", "yes" if genesis and genesis.simulated else "no", "ledger")


def unit(given: Sources) -> Facts:
    """Whom the guarantee is about."""
    yield given.declared("unit", given.grouped(lambda row: row["unit"]) or _genesis(given, "unit"), "ledger")
    yield given.declared(
        "identity of a vehicle", given.grouped(lambda row: IDENTITIES.get(row["identity"])), "plan"
    )
    disjoint = [
        str(one.seq) for one in given.case.course.ledger.signed if isinstance(one, Grant) and one.disjoint
    ]
    if disjoint:
        yield given.declared("vehicles new with the grants", f"entries {listed(disjoint)}", "ledger")
    yield given.by_region("vehicles in other regions", "vehicles_in_other_regions")
    yield given.by_region("vehicles per person", "vehicles_per_person")


def roster(given: Sources) -> Facts:
    """How many vehicles, and how much of each."""
    yield given.declared(
        "roster N", given.grouped(lambda row: row["roster"] and f"{row['roster']:,}"), "plan"
    )
    yield given.declared(
        "windows per vehicle and step, at most k",
        given.grouped(lambda row: row["windows_per_vehicle"] and f"{row['windows_per_vehicle']:,}"),
        "plan",
    )
    yield given.declared("task", given.grouped(_task), "plan")
    yield given.by_region("retention of windows", "retention_of_windows")


def adjacency(given: Sources) -> Facts:
    """Which two data sets are compared."""
    named = given.grouped(lambda row: row["adjacency"]) or _genesis(given, "adjacency")
    yield given.declared("adjacency", named, "ledger")
    yield given.by_program("meaning", GENERAL["Adjacency"])


def accesses(given: Sources) -> Facts:
    """Which uses of the data the epsilon counts, and which it does not."""
    booked = sum(row["booked"] for row in given.plans)
    plans = counted(len(given.plans), "plan")
    yield given.recomputed("covered", f"training in {counted(booked, 'booked round')} of {plans}")
    for label, key in (
        ("preprocessing", "preprocessing"),
        ("tuning", "tuning"),
        ("evaluation", "evaluation"),
        ("debugging", "debugging"),
        ("origin of the initial model", "initial_model"),
    ):
        yield given.by_region(f"not covered: {label}", key)
    yield given.declared(
        "initial model, SHA-256 of its arrays", given.grouped(lambda row: row["initial_sha256"]), "plan"
    )
    if any(row["backbone_sha256"] for row in given.plans):
        yield given.declared(
            "frozen weights that no region trains or sends, SHA-256 of their file",
            given.grouped(lambda row: row["backbone_sha256"]),
            "plan",
        )


def outputs(given: Sources) -> Facts:
    """Everything that crossed."""
    total = sum(row["bytes"] for row in given.releases)
    yield given.recomputed(
        "releases", f"{counted(len(given.releases), 'release')}, {total:,} bytes in all; each is listed"
    )
    where = Counter(row["destination"] for row in given.releases)
    if where:
        destinations = [f"{name} ({count:,})" for name, count in where.items()]
        yield given.recomputed("destinations", listed(destinations))
        schemas = sorted({row["schema"] for row in given.releases})
        yield given.recomputed("schemas, SHA-256", listed(schemas, 4))
    found = Counter(row["delivery"] for row in given.releases)
    if given.receipts:
        covered = f"{found[RECEIVED]:,} received, {found[UNDELIVERED]:,} undelivered and counted as spent"
        outside = f", {found[None]:,} in plans that the receipts do not cover" if found[None] else ""
        yield given.recomputed("delivery, by the coordinator's receipts", covered + outside)
    else:
        yield given.declared("delivery, by the coordinator's receipts", None, "")


def mechanism(given: Sources) -> Facts:
    """What was done to the data in each step."""
    yield given.recomputed("sample rate q", given.grouped(lambda row: f"{row['sample_rate']:g}"))
    yield given.recomputed("noise multiplier sigma", given.grouped(lambda row: row["noise"]))
    yield given.recomputed("clipping norm C", given.grouped(lambda row: f"{row['max_grad_norm']:g}"))
    yield given.recomputed(
        "steps T", given.grouped(lambda row: f"{row['steps']:,} in {counted(row['rounds'], 'round')}")
    )
    yield given.declared(
        "divisor B = q N, a constant",
        given.grouped(lambda row: row["divisor"] and f"{row['divisor']:g}"),
        "plan",
    )
    yield given.by_program("sampler", "Poisson: each vehicle independently with probability q in every step")
    yield given.by_program("batch cap", "none; large draws are worked off in parts")
    yield given.by_program(
        "clipping", "L2 norm of each vehicle's mean gradient over at most k of its windows, cut to C"
    )
    yield given.by_program("non-finite gradients", "count as zero, before clipping")


def _task(row: dict[str, Any]) -> str | None:
    task = row["task"]
    if task is None:
        return None
    options = ", ".join(f"{name} {value}" for name, value in task["options"].items())
    return f"{task['name']} ({options})" if options else str(task["name"])


def _genesis(given: Sources, key: str) -> str | None:
    genesis = given.case.course.ledger.genesis
    return getattr(genesis, key) if genesis else None
