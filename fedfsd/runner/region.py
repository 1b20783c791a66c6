"""A region: its data, its gate, its secrets, and the one walk of a round through them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from fedfsd import canonical
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.engine import local, randomness
from fedfsd.engine.device import resolve
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.probe import probe, probe_places
from fedfsd.engine.sampler import lanes
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.errors import RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate, content_of
from fedfsd.gate.policy import Policy, declared, simulated
from fedfsd.gate.remote import RemoteGate
from fedfsd.ledger.ledger import Released
from fedfsd.plan.plan import WITNESS, Arrays, Plan
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
    simulated: bool = False
    """A simulation may also rehearse, or train without privacy; a real node takes private plans only."""


@dataclass
class Region:
    """One region of a running federation; data and models stay loaded between rounds."""

    config: RegionConfig
    gate: Gate | RemoteGate
    """The gate itself, or the way to it where it is another process."""
    _runs: dict[str, tuple[VehicleGradient, VehicleData]] = field(default_factory=dict)

    @property
    def keys(self) -> Path:
        """The folder of run keys."""
        return Path(self.config.folder) / "keys"

    def prepared(self, plan: Plan) -> tuple[VehicleGradient, VehicleData]:
        """The plan's model, probed, and this region's examples on its device; kept for one plan."""
        if plan.hash not in self._runs:
            self._runs.clear()
            task = self.task(plan)
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
            mine = plan.region(self.config.name)
            device, roster = resolve(self.config.device), mine.roster
            model = self.model(task, plan)
            _demand_schema(model, plan)
            probe(model, task)
            if mine.packed:
                size = sum(parameter.numel() for parameter in model.parameters())
                shapes = lanes(mine.roster, mine.sample_rate, mine.windows_per_vehicle, size)
                probe_places(model, task, shapes, device=device)
            # From here on nothing stops that the data could cause: who is unusable contributes zero.
            examples, found = gather(task, tables, self.config.name)
            for line in found.remarks(roster):
                remark(Path(self.config.folder), f"plan {plan.hash[:8]}: {line}")
            data = place(examples, roster=roster, device=device)
            self._runs[plan.hash] = local.model_on(model, task.loss, device), data
        return self._runs[plan.hash]

    def task(self, plan: Plan) -> Task:
        """The plan's task. RefusedError where it is not the one that the policy names."""
        name = plan.task.name
        return registry.of(name, plan.task.options, reviewed=self.gate.pin_task(name))

    def model(self, task: Task, plan: Plan) -> nn.Module:
        """The plan's model as initialised. RefusedError where it is not the one that the policy names."""
        name, options = plan.model.name, plan.model.options
        return task.model(name, options, seed=plan.seed, reviewed=self.gate.pin(name, plan.task.name))


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
    """Admit, book, train, release: the whole of what a region does for a coordinator.

    Raises:
        RefusedError: plan, round or arrays the region does not accept, or an update it will not send.
        BudgetError: a plan that is not approved, or a round booked on other arrays.
    """
    gate = region.gate
    gate.admit(plan, round, arrays)
    if plan.mode == "none":
        return _unbooked(region, arrays, plan, round)
    booked = gate.reserve(plan, round, arrays)
    released = gate.released(booked)
    if released is None:
        update = _train(region, arrays, plan, round, booked.arrays_sha256)
        released = gate.release(update, booked, plan)
    if round == plan.rounds_of(region.config.name):
        gate.settle(plan.hash)
        randomness.destroy_run_key(region.keys, plan.hash)
    return released


def _unbooked(region: Region, arrays: Arrays, plan: Plan, round: int) -> Released:
    """A round without privacy, in a simulation alone: nothing is promised, so nothing is booked."""
    sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
    update = _train(region, arrays, plan, round, sha256)
    content = content_of(update, plan, region.config.name, round)
    return Released(entry=0, entry_hash="", sha256=canonical.sha256(content), content=content)


def _train(
    region: Region, arrays: Arrays, plan: Plan, round: int, arrays_sha256: str
) -> dict[str, np.ndarray]:
    gradient, data = region.prepared(plan)
    if plan.mode == "private":
        secret = randomness.run_key(region.keys, plan.hash, create=False)
    else:
        secret = randomness.known_key(plan.hash, region.config.noise_key or None)
    key = randomness.RoundKey(secret, region.config.name, plan.hash, round, arrays_sha256)
    return local.train(gradient, data, arrays, plan, key, region.gate.demand_wanted)


def _demand_schema(model: nn.Module, plan: Plan) -> None:
    """The plan's arrays must be this model's: swapped or reshaped ones would be trained as something else."""
    mine = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    if mine != [(entry.name, entry.shape) for entry in plan.model.arrays if entry.name != WITNESS]:
        raise RefusedError(
            "plan.model.arrays",
            got="other arrays than the model has",
            expected="the names and shapes of the model",
            hint="compare the fedfsd versions of both sides",
        )
