"""A region: its data, its gate, its secrets, and the one walk of a round through them."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from fedfsd import canonical
from fedfsd.config.experiment import GradientEngine
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.engine import backbone, canary, local, randomness, trunk
from fedfsd.engine.device import demand_precision, resolve
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.probe import probe, probe_places
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate, content_of
from fedfsd.gate.policy import ModelPin, Policy, declared, simulated
from fedfsd.gate.remote import RemoteGate
from fedfsd.gate.resident import demand_other_start
from fedfsd.ledger import digest
from fedfsd.ledger.ledger import Released
from fedfsd.mechanism.canary import coins as tosses
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.runner import coins, replay
from fedfsd.runner.group import Group
from fedfsd.task import registry
from fedfsd.task.gather import gather, tables_of
from fedfsd.task.task import Task

# In the region's folder: what went wrong there, and what its people should know.
LOG = "region.log"


@dataclass(frozen=True)
class RegionConfig:
    """What a region's operator decides; nothing of it crosses."""

    name: str
    data_path: str
    folder: str
    """Ledger, mirror, outbox and run keys."""
    device: str = "auto"
    policy: str = ""
    """A policy file; empty: the default policy."""
    noise_key: str = ""
    """For rehearsals only, in hex."""
    backbones: str = ""
    """A file of frozen weights, or a folder of such files; a plan finds its own by its hash."""
    engine: GradientEngine = "auto"
    """How each vehicle's gradient is had."""
    simulated: bool = False
    """A simulation may also rehearse, or train without privacy; a real node takes private plans only."""


class Reviewer(Protocol):
    """What the policy says of models and tasks of other packages."""

    def pin(self, model: str, task: str, /) -> ModelPin | None:
        """Of the model ``model`` of the task ``task``."""

    def pin_task(self, task: str, /) -> ModelPin | None:
        """Of the task."""


@dataclass
class Region:
    """One region of a running federation; data and models stay loaded between rounds."""

    config: RegionConfig
    gate: Gate | RemoteGate | Reviewer
    """The gate itself, or the way to it where it is another process; one that only computes has none."""
    group: Group | None = None
    """The processes that train together; None: this one alone."""
    _models: dict[str, tuple[Task, nn.Module]] = field(default_factory=dict)
    _runs: dict[str, tuple[VehicleGradient, VehicleData]] = field(default_factory=dict)
    _replayed: set[str] = field(default_factory=set)

    @property
    def keys(self) -> Path:
        """The folder of run keys."""
        return Path(self.config.folder) / "keys"

    def demand_model(self, plan: Plan) -> tuple[Task, nn.Module]:
        """The plan's task and model, probed, from no data: asked before a round is booked.

        Raises:
            FedfsdError: this region cannot train the model (see ``model``, ``probe`` and ``probe_places``).
        """
        if plan.hash not in self._models:
            self._models.clear()
            task = self.task(plan)
            model = self.model(task, plan)
            probe(model, task, {entry.name for entry in plan.model.arrays}, engine=self.config.engine)
            if plan.region(self.config.name).packed:
                probe_places(
                    model,
                    task,
                    [plan.region(self.config.name)],
                    device=resolve(self.config.device),
                    precision=plan.precision,
                    engine=self.config.engine,
                )
            self._models[plan.hash] = task, model
        return self._models[plan.hash]

    def prepared(self, plan: Plan) -> tuple[VehicleGradient, VehicleData]:
        """The plan's model and this region's examples on its device; kept for one plan."""
        if plan.hash not in self._runs:
            task, model = self.demand_model(plan)
            model = copy.deepcopy(model)  # the engine changes how its layers work
            tables = tables_of(task, self.config.data_path, self.config.name)
            if plan.mode == "rehearsal" and any(
                part.origin == "recorded" for part in table.in_region(tables, self.config.name)
            ):
                raise RefusedError(
                    "mode",
                    got="rehearsal on recorded data",
                    expected="private",
                    hint='rehearse on a table whose origin is "synthetic" or "published"',
                )
            device, roster = resolve(self.config.device), plan.region(self.config.name).roster
            # From here on nothing stops that the data could cause: who is unusable contributes zero.
            examples, found = gather(task, tables, self.config.name)
            for line in found.remarks(roster):
                remark(Path(self.config.folder), f"plan {plan.hash[:8]}: {line}")
            behind = trunk.frozen(model, task)
            beside = canary.of(plan, self.config.name)
            gradient = local.model_on(
                model,
                task.loss,
                device,
                plan.precision,
                behind_trunk=behind,
                engine=self.config.engine,
                canaries=beside,
            )
            data = (
                trunk.place_behind(model, examples, roster=roster, device=device)
                if behind
                else place(examples, roster=roster, device=device)
            )
            self._runs = {plan.hash: (gradient, data if beside is None else beside.beside(data))}
        return self._runs[plan.hash]

    def pins(self, plan: Plan) -> dict[str, ModelPin | None]:
        """What the policy says of the plan's model and task."""
        task = plan.task.name
        return {"model": self.gate.pin(plan.model.name, task), "task": self.gate.pin_task(task)}

    def replay(self, plan: Plan, arrays: Arrays) -> None:
        """Before a plan's first round in this process: refuse where its mechanism is not the planned one.

        On made-up tables, so before anything is booked: see ``runner.replay``.
        """
        if plan.hash not in self._replayed:
            task, model = self.demand_model(plan)
            model = copy.deepcopy(model)
            device, engine = resolve(self.config.device), self.config.engine
            beside = canary.of(plan, self.config.name)
            gradient = local.model_on(
                model, task.loss, device, plan.precision, engine=engine, canaries=beside
            )
            replay.demand(gradient, model, task, plan, self.config.name, arrays)
            self._replayed.add(plan.hash)

    def task(self, plan: Plan) -> Task:
        """The plan's task. RefusedError where it is not the one that the policy names."""
        name = plan.task.name
        return registry.of(name, plan.task.options, reviewed=self.gate.pin_task(name))

    def model(self, task: Task, plan: Plan) -> nn.Module:
        """The plan's model as initialised, with its backbone in place.

        Raises:
            RefusedError: it is not the one that the policy names, or has other arrays or weights.
            NotReadyError: its backbone is not here.
        """
        name, options = plan.model.name, plan.model.options
        model = task.model(name, options, seed=plan.seed, reviewed=self.gate.pin(name, plan.task.name))
        backbone.fit(model, plan.model, self.config.backbones)
        return model


def remark(folder: Path, text: str) -> None:
    """Write ``text`` into the region's log, for its own people alone; a full disk costs the line."""
    with suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")


def policy_of(config: RegionConfig) -> Policy:
    """The policy of a region; a simulated one also takes rehearsals, runs without privacy or witness.

    Raises:
        ConfigError: a real region that does not declare its roster and identity, or more than mode private.
    """
    policy = load(Policy, config.policy) if config.policy else Policy()
    return simulated(policy) if config.simulated else declared(policy, config.policy or "policy")


def open_region(config: RegionConfig) -> Region:
    """The region described by ``config``; its ledger is opened when a round is booked."""
    return Region(config, Gate(config.name, policy_of(config), Path(config.folder)))


def run_round(region: Region, arrays: Arrays, plan: Plan, round: int) -> Released:
    """Admit, replay, book, train, release: the whole of what a region does for a coordinator.

    Raises:
        RefusedError: plan, round or arrays the region does not accept, or an update it will not send.
        BudgetError: a plan that is not approved, or a round booked on other arrays.
    """
    gate = _gate(region)
    gate.admit(plan, round, arrays)
    demand_precision(
        resolve(region.config.device), plan.precision
    )  # like the model, before anything is booked
    region.demand_model(plan)
    if round == 1:
        demand_other_start(Path(region.config.folder), arrays)
    if plan.mode == "none":
        return _unbooked(region, arrays, plan, round)
    region.replay(plan, arrays)
    booked = gate.reserve(plan, round, arrays)
    released = gate.released(booked)
    if released is None:
        update = _train(region, arrays, plan, round, booked.arrays_sha256)
        folder, secret = Path(region.config.folder), _secret(region, plan)
        letters = coins.judged(folder, plan, region.config.name, round, update, secret)
        released = gate.release(update, booked, plan, letters)
    if round == plan.rounds_of(region.config.name):
        gate.settle(plan.hash)
        randomness.destroy_run_key(region.keys, plan.hash)
    return released


def _gate(region: Region) -> Gate | RemoteGate:
    if not isinstance(region.gate, Gate | RemoteGate):
        raise NotReadyError("gate", got="none", expected="one: this process only computes for another")
    return region.gate


def _unbooked(region: Region, arrays: Arrays, plan: Plan, round: int) -> Released:
    """A round without privacy, in a simulation alone: nothing is promised, so nothing is booked."""
    sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
    update = _train(region, arrays, plan, round, sha256)
    content = content_of(update, plan, region.config.name, round)
    return Released(entry=0, entry_hash="", sha256=canonical.sha256(content), content=content)


def _train(
    region: Region, arrays: Arrays, plan: Plan, round: int, arrays_sha256: str
) -> dict[str, np.ndarray]:
    gate = _gate(region)
    gradient, data = region.prepared(plan)
    secret = _secret(region, plan)
    count = plan.region(region.config.name).canaries
    if count:
        data = canary.tossed(data, tosses(digest.coins_seed(secret), count))
    key = randomness.RoundKey(secret, region.config.name, plan.hash, round, arrays_sha256)
    if region.group is None:
        return local.train(gradient, data, arrays, plan, key, gate.demand_wanted)
    with region.group.together(plan, region.pins(plan), gradient) as shared:
        return local.train(shared, data, arrays, plan, key, gate.demand_wanted)


def _secret(region: Region, plan: Plan) -> bytes:
    """The run key."""
    if plan.mode == "private":
        return randomness.run_key(region.keys, plan.hash, create=False)
    return randomness.known_key(plan.hash, region.config.noise_key or None)
