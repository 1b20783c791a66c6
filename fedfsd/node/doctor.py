"""Is this region ready to take part? Each check reports what it found and how to fix it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fedfsd.border import clock as clocks
from fedfsd.border import fitness, identity, invitation
from fedfsd.errors import FedfsdError, NotReadyError, PendingError
from fedfsd.gate.gate import USUAL_WITNESS, unnoticed
from fedfsd.gate.policy import declared, objections
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import NODE_KEY
from fedfsd.ledger.store import DATABASE
from fedfsd.node import join, status
from fedfsd.node.approve import DIGITS
from fedfsd.node.approve import read as read_plan
from fedfsd.node.node import Node
from fedfsd.node.separation import Separation, ask, replays, surveys
from fedfsd.plan.plan import Plan
from fedfsd.service import diagnosis
from fedfsd.service.diagnosis import CheckResult, fail, ok, warn

LITTLE = 0.1  # of a grant


@dataclass
class Patient:
    """A region, and what was asked of its processes once."""

    node: Node
    train: Path
    today: datetime.date
    test_only: bool = False
    ask: Callable[[Node, Path, str], Separation] = field(default=ask)
    survey: Callable[[Path, Sequence[Mapping[str, Any]]], list[dict[str, Any]]] = field(default=surveys)
    replay: Callable[[Path, Sequence[Mapping[str, Any]]], list[list[str]]] = field(default=replays)

    @cached_property
    def facts(self) -> Separation:
        """What runner and gate can do. NotReadyError if neither could be asked."""
        try:
            address = join.peer(self.node).way_out
        except FedfsdError:
            address = ""
        return self.ask(self.node, self.train, address)

    @cached_property
    def status(self) -> dict[str, Any]:
        """The state of the ledger. PendingError before it begins."""
        if not (self.node.ledger / DATABASE).exists():
            raise PendingError("ledger", got="comes after the check ledger")
        return status.status(self.node, today=self.today)

    @cached_property
    def offered(self) -> list[Plan]:
        """The plans that came for this region and are not over."""
        over = {one["plan"] for one in self.status["plans"] if one["settled"]}
        found = (read_plan(path) for path in sorted((self.node.folder / "plans").glob("*.json")))
        return [one for one in found if one.hash not in over and self.node.settings.name in one.regions]


def _clock_offset(node: Node) -> float | None:
    """Seconds by which this machine's clock is ahead of the coordinator's; None where it does not say."""
    peer = join.peer(node)
    return fitness.clock_offset(
        peer.address,
        root=peer.root,
        key=peer.key,
        certificate=peer.certificate,
        expected_uri=peer.expected_uri,
        proxy=peer.proxy,
    )


def examine(patient: Patient) -> tuple[CheckResult, ...]:
    """Every check, in the order in which an operator would fix things."""
    return diagnosis.diagnose(patient, CHECKS)


def policy(patient: Patient) -> CheckResult:
    """Is the policy complete, are recipient and purpose filled in, and does it leave something unnoticed?"""
    node = patient.node
    allowed = node.declared_policy()
    recipient, purpose = node.settings.transfer_to()
    joined = node.folder / "tls" / "invitation.json"
    if joined.exists() and recipient != f"fedfsd/coordinator/{invitation.read(joined).federation}":
        return fail(
            "policy",
            f"transfers to {recipient}, which is not the coordinator this region joined",
            fix="region.toml: transfer.recipient",
        )
    if missed := unnoticed(allowed.min_witness_size):
        return warn("policy", missed, fix=f"policy.toml: min_witness_size = {USUAL_WITNESS} or more")
    if not allowed.round_seconds:
        return warn(
            "policy",
            "round_seconds = 0: the coordinator sees how long training takes, which may depend on the data",
            fix="policy.toml: round_seconds, longer than training takes here",
        )
    return ok("policy", f"for {purpose} by {recipient}")


def disk(patient: Patient) -> CheckResult:
    """Is there room for ledger, outbox and inbox?"""
    return diagnosis.disk("disk", patient.node.folder)


def mirror(patient: Patient) -> CheckResult:
    """Would the ledger's second copy outlive the first?"""
    from fedfsd.node.new_region import on_one_disk

    behind = patient.status["mirror_behind"]
    if behind:
        return fail(
            "mirror",
            f"no room on {patient.node.mirror} for the newest entries ({behind})",
            fix="make room there: rounds wait until it has the whole ledger",
        )
    found = diagnosis.disk("mirror", patient.node.mirror.parent)
    if on_one_disk(patient.node):
        return warn(
            "mirror", "on the ledger's own disk", fix="move it to another disk and set mirror in region.toml"
        )
    return found


def keys(patient: Patient) -> CheckResult:
    """Are private keys there, and their owner's alone?"""
    node = patient.node
    SigningKey.read(node.ledger / NODE_KEY)
    # The runner's group may pass through on its way to the socket.
    return diagnosis.private("keys", node.folder, ("ledger", "tls", "tls.next", "keys", "salts"), shut=0o067)


def ledger(patient: Patient) -> CheckResult:
    """Is the ledger the newest copy, open, with the node's key in force?"""
    patient.node.demand_ledger()
    found = patient.status
    if found["closed"]:
        return fail(
            "ledger", "closed: no entry can follow", fix="fedfsd region init --previous begins the next"
        )
    in_force = str(SigningKey.read(patient.node.ledger / NODE_KEY).verification) == found["node_key"]
    if not in_force:
        return fail("ledger", "the node's key is not the current one", fix="fedfsd region rotate")
    return ok("ledger", f"{found['ledger'][:8]}, {found['entries']} entries")


def clock(patient: Patient) -> CheckResult:
    """Is this machine's clock plausible? Nothing but certificates and dates of approvals depends on it."""
    fix = "set the clock (timedatectl set-ntp true, or the data centre's time server)"
    written = patient.node.ledger / "ledger.sqlite"
    ahead = (written.stat().st_mtime if written.exists() else 0.0) - time.time()
    booked = max((one["date"] for one in patient.status["releases"]), default="")
    today = patient.today.isoformat()
    if ahead > clocks.LIMIT_SECONDS or booked > today:
        return fail("clock", f"{today} is earlier than the last entry", fix=fix)
    mine = identity.read(join.peer(patient.node).certificate.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    if now < mine.not_valid_before_utc:
        return fail("clock", f"{today} is before the certificate was issued", fix=fix)
    offset = _clock_offset(patient.node)
    if offset is None:
        return ok("clock", f"{today}, later than ledger and certificate; not compared with the coordinator's")
    if (told := clocks.objection(offset)) is not None:
        return fail("clock", str(told.got), fix=str(told.hint))
    return ok("clock", f"{today}, within {clocks.LIMIT_SECONDS / 60:.0f} min of the coordinator's")


def certificate(patient: Patient) -> CheckResult:
    """Does this region have the federation's certificate, and for how long is it valid?"""
    peer = join.peer(patient.node)
    name = patient.node.settings.name
    return fitness.certificate(
        "certificate",
        peer.certificate,
        root=peer.root,
        key=peer.key,
        party=identity.region(peer.invitation.federation, name),
        fix="fedfsd region up renews it while it is valid; afterwards a new invitation, then"
        f" fedfsd region init {name} --join INVITATION -o {patient.node.folder}",
    )


def coordinator(patient: Patient) -> CheckResult:
    """Does the coordinator answer, and is it the right one?"""
    peer = join.peer(patient.node)
    return fitness.reach(
        "coordinator",
        peer.address,
        root=peer.root,
        key=peer.key,
        certificate=peer.certificate,
        expected_uri=peer.expected_uri,
        proxy=peer.proxy,
    )


def data(patient: Patient) -> CheckResult:
    """Can the runner read the region's tables?"""
    facts = patient.facts
    if not facts.data:
        return fail(
            "data",
            f"the runner cannot read its tables ({facts.asked})",
            fix=f"data_path in {patient.train / 'train.toml'}; fedfsd data check shows details",
        )
    return ok("data", f"the runner reads its tables ({facts.asked})")


def windows(patient: Patient) -> CheckResult:
    """Has the region vehicles to train on in each open plan, and not more than are stated?"""
    allowed = patient.node.policy()
    region = patient.node.settings.name
    asked: dict[str, dict[str, Any]] = {
        f"plan {plan.hash[:8]}: ": {
            "task": plan.task.model_dump(mode="json"),
            "pin": (pin := allowed.pin_task(plan.task.name)) and pin.model_dump(mode="json"),
            "roster": plan.region(region).roster,
        }
        for plan in patient.offered
    }
    if not asked and allowed.tasks:
        return ok("windows", "not counted before a plan names one of the policy's tasks")
    usual = {"task": {"name": "forecasting", "options": {}}, "pin": None, "roster": allowed.roster}
    asked = asked or {"": usual}
    try:
        told = patient.survey(patient.train, list(asked.values()))
    except NotReadyError as error:  # this user may not read the data, as it should be
        return warn("windows", f"not counted: {error.got}", fix=str(error.hint))
    wrong = [f"{plan}{line}" for plan, one in zip(asked, told, strict=True) for line in one["wrong"]]
    if wrong:
        return fail(
            "windows",
            "; ".join(wrong),
            fix="approve no plan before that is mended: fedfsd data check, roster in policy.toml",
        )
    return ok("windows", "; ".join(f"{plan}{one['said']}" for plan, one in zip(asked, told, strict=True)))


def backbones(patient: Patient) -> CheckResult:
    """Has the runner the frozen weights that the policy or an open plan names?"""
    allowed = patient.node.policy()
    wanted = {one.sha256: one.name for one in allowed.backbones or ()}
    for plan in patient.offered:
        if plan.model.backbone is not None and plan.model.backbone.source == "file":
            wanted.setdefault(plan.model.backbone.sha256, f"plan {plan.hash[:8]}")
    if not wanted:
        return ok("backbones", "no frozen weights are named")
    try:
        told = patient.survey(patient.train, [{"backbone": sha256} for sha256 in wanted])
    except NotReadyError as error:
        return warn("backbones", f"not looked for: {error.got}", fix=str(error.hint))
    missing = [
        f"{name} ({sha256[:16]})"
        for (sha256, name), one in zip(wanted.items(), told, strict=True)
        if one["wrong"]
    ]
    if missing:
        return fail(
            "backbones",
            f"the runner has no file with the hash of {', '.join(missing)}",
            fix="put the coordinator's backbone.safetensors, readable by the runner, where backbones is in"
            f" {patient.train / 'train.toml'}",
        )
    return ok("backbones", f"the runner has {', '.join(wanted.values())}")


def replay(patient: Patient) -> CheckResult:
    """Does the runner's program run the mechanism of each open plan?"""
    allowed = patient.node.policy()
    asked = [
        {
            "plan": plan.document(),
            "pin": (pin := allowed.pin(plan.model.name, plan.task.name)) and pin.model_dump(mode="json"),
            "task_pin": (mine := allowed.pin_task(plan.task.name)) and mine.model_dump(mode="json"),
        }
        for plan in patient.offered
    ]
    if not asked:
        return ok("replay", "no open plan; a runner replays a round of each before its first one")
    try:
        told = patient.replay(patient.train, asked)
    except NotReadyError as error:  # this user may not run it, as it should be
        return warn("replay", f"not run: {error.got}", fix=str(error.hint))
    wrong = [
        f"plan {plan.hash[:8]}: {fault}"
        for plan, faults in zip(patient.offered, told, strict=True)
        for fault in faults
    ]
    if wrong:
        return fail("replay", "; ".join(wrong), fix="install the reviewed program again: fedfsd config code")
    return ok("replay", f"{len(asked)} plans: the runner's program is their mechanism")


def accelerator(patient: Patient) -> CheckResult:
    """What does the runner compute on?"""
    device = patient.facts.device
    if device is None:
        return fail(
            "accelerator",
            "the runner has no such device",
            fix=f'device = "auto" in {patient.train / "train.toml"}',
        )
    return ok("accelerator", device)


def plans(patient: Patient) -> CheckResult:
    """Do the plans that came fit the policy, and does one wait for a person?"""
    node = patient.node
    allowed = declared(node.policy(), node.settings.policy, test_only=patient.test_only)
    if changed := patient.status["program_changed"]:
        return fail(
            "plans",
            f"rounds of {changed[0][:8]} are refused: the runner is another program than the one on record",
            fix=f"review it, then fedfsd region approve {changed[0][:DIGITS]} --program; or install the old",
        )
    known = {one["plan"] for one in patient.status["plans"]}
    found = [read_plan(path) for path in sorted((node.folder / "plans").glob("*.json"))]
    for plan in found:
        reasons = objections(allowed, plan, node.settings.name)
        if reasons:
            return warn(
                "plans",
                f"{plan.hash[:8]} is refused: {'; '.join(reasons)}",
                fix="change the plan to fit the policy, or widen the policy",
            )
    waiting = [plan.hash[:DIGITS] for plan in found if plan.hash not in known]
    if waiting:
        return warn(
            "plans", f"{', '.join(waiting)} waiting for approval", fix=f"fedfsd region approve {waiting[0]}"
        )
    return ok("plans", f"{len(found)} received, all within the policy")


def budget(patient: Patient) -> CheckResult:
    """Is anything left of what the data officer granted?"""
    grants = patient.status["grants"]
    if not grants:
        return fail("budget", "no grant", fix="fedfsd region grant")
    found = ", ".join(f"{one['data_set']}: {1 - one['left'] / one['rho_max']:.0%} booked" for one in grants)
    least = min(one["left"] / one["rho_max"] for one in grants)
    if all(one["left"] <= 0 for one in grants):
        return fail("budget", found, fix="no further plan can be approved; the officer may sign a new grant")
    return (
        warn("budget", found, fix="plan for the end of the grant") if least < LITTLE else ok("budget", found)
    )


def separation(patient: Patient) -> CheckResult:
    """Can the runner reach a network or the gate's keys, or the gate the data?"""
    facts = patient.facts
    broken = []
    if facts.tcp:
        broken.append("the runner can open a network connection")
    if facts.gate_folder:
        broken.append("the runner can read the gate's keys")
    if facts.gate_reads_data:
        broken.append("the gate can read the data")
    if broken:
        return fail(
            "separation",
            f"{', '.join(broken)} ({facts.asked})",
            fix="two users and the systemd units of clients/deploy, or fedfsd region up as root"
            " with --gate-user and --train-user; for processes on several machines, IPAddressAllow as in"
            " fedfsd-train@.service",
        )
    if facts.gate_reads_data is None:
        return warn(
            "separation",
            f"no network or keys for the runner; unknown whether the gate can read the data ({facts.asked})",
            fix="ask again as root while fedfsd region up runs",
        )
    return ok("separation", f"no network and no keys for the runner, no data for the gate ({facts.asked})")


CHECKS: tuple[Callable[[Patient], CheckResult], ...] = (
    policy,
    disk,
    mirror,
    keys,
    ledger,
    clock,
    certificate,
    coordinator,
    data,
    windows,
    backbones,
    replay,
    accelerator,
    plans,
    budget,
    separation,
)
