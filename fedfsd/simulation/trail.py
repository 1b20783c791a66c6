"""What a run leaves behind as it goes: rounds, checkpoints, progress, and at the end model and metrics."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fedfsd.engine import backbone
from fedfsd.errors import AccountingError
from fedfsd.federation import checkpoint
from fedfsd.federation.reply import RegionOutcome
from fedfsd.federation.strategy import PlannedStrategy, Round
from fedfsd.gate.outcome import RELEASED
from fedfsd.mechanism import accountant
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.report.run_folder import EXAMPLES, Folder, releases, seconds_left
from fedfsd.report.words import amount
from fedfsd.runner.adapt import own_models
from fedfsd.simulation.prepare import Prepared, model_with
from fedfsd.simulation.track import Trackers
from fedfsd.task import registry, score
from fedfsd.task.gather import gather, tables_of
from fedfsd.task.task import ALONE, START, STAYS_HOME, Examples, Scores, described, headline

_CURVE_POINTS = 10
_SHOWN = 6  # regions by name; more are averaged
_PACKAGES = ("fedfsd", "torch", "flwr", "opacus", "dp-accounting", "prv-accountant", "numpy")


@dataclass(frozen=True)
class Progress:
    """What a watcher sees after each round. ``epsilon`` is what the rounds so far have spent, at most."""

    round: int
    num_rounds: int
    headline: Mapping[str, float]
    """By region; empty where the round is not evaluated."""
    headline_name: str
    headline_unit: str
    epsilon: Mapping[str, float | None]
    outcomes: Mapping[str, str]
    seconds_left: float | None
    """None where it cannot be known yet."""

    def told(self, headline: Mapping[str, float]) -> str:
        """One line for people; ``headline`` is what was measured last, since not every round is evaluated."""
        parts = [f"round {self.round}/{self.num_rounds}"]
        if headline:
            parts.append(f"{self.headline_name} {_by_region(headline, self.headline_unit)}")
        spent = [value for value in self.epsilon.values() if value is not None]
        parts.append(f"epsilon {max(spent):.2f}" if spent else "not private")
        missing = [f"{name} {code}" for name, code in self.outcomes.items() if code != RELEASED]
        if missing:
            parts.append("without " + ", ".join(missing[:_SHOWN]))
        if self.seconds_left is not None:
            minutes, seconds = divmod(round(self.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return " | ".join(parts)


class Trail:
    """Writes one run's folder; ``begin``, then ``on_round`` for each round, then ``finish``."""

    def __init__(
        self,
        folder: Folder,
        prepared: Prepared,
        strategy: PlannedStrategy,
        checks: dict[str, dict[str, float | None] | None],
        progress: Callable[[Progress], None],
        trackers: Trackers,
    ) -> None:
        """``checks`` is what ``epsilon_check`` says of each region."""
        self.folder, self.prepared, self.strategy, self.progress = folder, prepared, strategy, progress
        self.trackers = trackers
        self.plan = prepared.plan
        self.task = prepared.task
        self.headline = headline(prepared.task)
        self.model = model_with(self.plan, prepared.task, prepared.initial, prepared.backbone)
        self.spent = {name: epsilon_by_round(self.plan, name) for name in self.plan.regions}
        self.checks = checks
        self.final: dict[str, float] = {}
        """After ``finish``: every figure, such as ``fde_m/EU`` or ``fde_m/pooled``."""
        self._seconds: list[float] = []
        self._pending: Future[None] | None = None
        # Of one thread, which keeps to the order of rounds.
        self._beside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def begin(self, *, resume: bool) -> tuple[int, dict[str, np.ndarray]]:
        """The first round to run and the arrays it starts from."""
        if resume and self.folder.checkpoint.exists():
            done, arrays = checkpoint.restore(self.folder.checkpoint, self.strategy)
            self.folder.keep_rounds(done)
            line = checkpoint.note(self.folder.checkpoint)
            if (
                line is not None and self.folder.rounds()[-1]["round"] < done
            ):  # cut off while it was evaluated
                self._log(line, self._write(line, self.strategy.released(arrays, done)))
            return done + 1, arrays
        self.folder.keep_rounds(-1)
        start = self._headlines(self.prepared.initial)
        self.trackers.log(0, self._tracked(start, {}))
        self.folder.append_round(
            {
                "round": 0,
                "seconds": 0.0,
                "regions": {name: {self.headline.key: value} for name, value in start.items()},
            }
        )
        return 1, self.prepared.initial

    def on_round(self, done: Round) -> None:
        """Write the checkpoint; evaluation, the line and the watcher follow beside the next round."""
        self.settle()
        regions = {name: self._line(name, done.number, outcome) for name, outcome in done.outcomes.items()}
        line = {"round": done.number, "seconds": round(done.seconds, 4), "regions": regions}
        if done.late:
            line["late"] = [
                {
                    "region": task.region,
                    "round": task.round,
                    **self._line(task.region, task.round, outcome),
                }
                for task, outcome in sorted(done.late.items(), key=lambda one: (one[0].region, one[0].round))
            ]
        checkpoint.save(self.folder.checkpoint, self.strategy, done, line)
        self._pending = self._beside.submit(self._tell, done, line)

    def settle(self) -> None:
        """Wait until the last round is written and told; whatever the watcher raised is raised here."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait as ``settle``, whatever was raised: nothing more is written afterwards."""
        self._beside.shutdown()

    def _tell(self, done: Round, line: dict[str, Any]) -> None:
        found = self._write(line, done.model)
        self._seconds.append(done.seconds)
        epsilon = self._log(line, found)
        self.progress(
            Progress(
                round=done.number,
                num_rounds=self.plan.num_rounds,
                headline=found,
                headline_name=self.headline.name,
                headline_unit=self.headline.unit,
                epsilon=epsilon,
                outcomes={name: outcome.code for name, outcome in done.outcomes.items()},
                seconds_left=seconds_left(self._seconds, self.plan.num_rounds - done.number),
            )
        )

    def _log(self, line: dict[str, Any], found: Mapping[str, float]) -> dict[str, float | None]:
        """Tell the trackers of a round; what each region has spent by its end."""
        number = line["round"]
        epsilon = {name: self._spent(name, number) for name in self.plan.regions}
        self.trackers.log(number, self._tracked(found, epsilon) | {"round_seconds": line["seconds"]})
        return epsilon

    def _write(self, line: dict[str, Any], model: Arrays) -> dict[str, float]:
        """Evaluate where due and write the line; the headlines."""
        number, every = line["round"], self.prepared.experiment.server.evaluate_every
        due = number % every == 0 or number == self.plan.num_rounds
        found = self._headlines(model) if due else {}
        for name, value in found.items():
            line["regions"].setdefault(name, {})[self.headline.key] = value
        self.folder.append_round(line)
        return found

    def finish(self, model: Arrays, *, spent: dict[str, dict[str, Any]], seconds: float) -> None:
        """Write the model, examples and, last, the metrics that mark the run complete.

        Args:
            spent: by region, what its ledger says of its grant.
        """
        self.settle()
        save_file(backbone.whole(model, self.prepared.backbone), self.folder.model)
        net = self._loaded(model)
        shown = {
            f"{name}_{part}": array
            for name, examples in self.prepared.test.items()
            for part, array in self.task.showcase(net, examples).items()
        }
        np.savez_compressed(self.folder.path / EXAMPLES, allow_pickle=False, **shown)
        metrics = self._metrics(net, spent, seconds)
        self.folder.write("metrics.json", metrics)
        self.final = {
            f"{key}/{place}": float(value)
            for place, figures in {**metrics["regions"], "pooled": metrics["pooled"]}.items()
            for key, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def _tracked(self, found: Mapping[str, float], epsilon: Mapping[str, float | None]) -> dict[str, float]:
        """The figures of a round as trackers keep them."""
        return {f"{self.headline.key}/{name}": value for name, value in found.items()} | {
            f"epsilon/{name}": value for name, value in epsilon.items() if value is not None
        }

    def _metrics(self, net: nn.Module, spent: dict[str, dict[str, Any]], seconds: float) -> dict[str, Any]:
        found = self._scores(net)
        own = self._own_models(net)
        simple = {name: self.task.baseline_scores(test) for name, test in self.prepared.test.items()}
        beside = {
            self.task.baseline: simple,
            START: self._scores(self._loaded(self.prepared.initial)),
            **own,
        }
        kinds = self._kinds()
        nothing = score.nothing(self.task)
        rounds = self.folder.rounds()
        arrived = Counter(name for line in rounds for name, _, _ in releases(line))
        regions = {
            name: score.figures(
                self.task,
                found.get(name, nothing),
                {what: one.get(name, nothing) for what, one in beside.items()},
            )
            | self._by_kind({name: found[name]} if name in found else {}, simple, kinds)
            | self._privacy(name, arrived[name])
            | spent.get(name, {})
            for name in self.plan.regions
        }
        return {
            "run": str(self.folder.path),
            "name": self.plan.name,
            "mode": self.plan.mode,
            "complete": True,
            "seconds": round(seconds, 2),
            "num_rounds": self.plan.num_rounds,
            "plan": self.plan.hash,
            "task": described(self.task),
            "parameters": self.plan.model.parameters,
            **_backbone(self.plan),
            "witness_size": self.plan.model.witness_size,
            "versions": {name: metadata.version(name) for name in _PACKAGES}
            | {"python": platform.python_version()},
            "data": {"path": self.prepared.experiment.data.path, "origin": self.prepared.origins},
            "crossing": self.prepared.crossing and asdict(self.prepared.crossing),
            "regions": regions,
            "pooled": score.figures(
                self.task,
                score.pool(found.values()) if found else nothing,
                {what: score.pool(one.values()) if one else nothing for what, one in beside.items()},
            )
            | self._by_kind(found, simple, kinds),
        }

    def _kinds(self) -> dict[str, Mapping[str, np.ndarray]]:
        """By region which test examples are of a kind; empty where the task knows none."""
        known: Callable[[Examples], Mapping[str, np.ndarray]] | None = getattr(self.task, "kinds", None)
        return {} if known is None else {name: known(test) for name, test in self.prepared.test.items()}

    def _by_kind(
        self,
        found: Mapping[str, Scores],
        simple: Mapping[str, Scores],
        kinds: Mapping[str, Mapping[str, np.ndarray]],
    ) -> dict[str, Any]:
        """The figures of some regions together by kind of example."""
        names = [name for name in found if name in kinds]
        if not names:
            return {}
        together = {kind: np.concatenate([kinds[name][kind] for name in names]) for kind in kinds[names[0]]}
        one, other = (score.pool(each[name] for name in names) for each in (found, simple))
        return {"by_kind": score.by_kind(self.task, one, other, together)}

    def _privacy(self, name: str, released: int) -> dict[str, Any]:
        mine = self.plan.region(name)
        return {
            "epsilon": mine.epsilon,
            "epsilon_by_round": self.spent[name],
            "epsilon_check": self.checks[name],
            "delta": None if mine.epsilon is None else mine.target_delta,
            "vehicles": mine.roster,
            **self._windows(name),
            "roster_counted": self.prepared.rosters[name].counted,
            "identity": mine.identity,
            "licence": self.prepared.licences.get(name, ""),
            "noise_multiplier": self.plan.noise_multiplier(name),
            "noise": self.plan.noise_words(name),
            "sample_rate": mine.sample_rate,
            "max_grad_norm": mine.max_grad_norm,
            "weight": mine.weight,
            "rounds_released": released,
        }

    def _windows(self, name: str) -> dict[str, int]:
        """What the region trained on, where its data are here."""
        survey = self.prepared.surveys.get(name)
        return {} if survey is None else {"with_window": survey.with_window, "windows": survey.windows}

    def _own_models(self, net: nn.Module) -> dict[str, dict[str, Scores]]:
        """What each region could make of the model for itself: measured and forgotten, never written.

        Empty where the experiment does not ask, or the regions' data are not here.
        """
        chosen, task = self.prepared.experiment.resident, self.task
        found: dict[str, dict[str, Scores]] = {STAYS_HOME: {}, ALONE: {}}
        if chosen is None or not self.prepared.surveys:
            return {}
        start = model_with(self.plan, task, self.prepared.initial, self.prepared.backbone)
        for model in (net, start):
            backbone.freeze(model, self.prepared.initial)
        path, device = self.prepared.experiment.data.path, self.prepared.experiment.training.device
        for name, test in self.prepared.test.items():
            examples, _ = gather(task, tables_of(task, path, name), name)
            own = own_models(task, examples, net, start, chosen, seed=self.plan.seed, device=device)
            found[STAYS_HOME][name] = task.scores(own.trained.model, test)
            if own.alone is not None:
                found[ALONE][name] = task.scores(own.alone.model, test)
        return found

    def _headlines(self, arrays: Arrays) -> dict[str, float]:
        found = self._scores(self._loaded(arrays))
        return {name: score.mean(scores, self.headline) for name, scores in found.items() if len(scores)}

    def _scores(self, net: nn.Module) -> dict[str, Scores]:
        return {name: self.task.scores(net, examples) for name, examples in self.prepared.test.items()}

    def _loaded(self, arrays: Arrays) -> nn.Module:
        backbone.put_arrays(self.model, arrays)
        return self.model

    def _line(self, name: str, number: int, outcome: RegionOutcome) -> dict[str, Any]:
        """What became of a region that a round asked; one that is not asked in every round counts its own."""
        own = (
            {} if self.plan.region(name).rounds is None else {"own_round": self.plan.rounds_of(name, number)}
        )
        return {
            "outcome": outcome.code,
            "sha256": outcome.sha256,
            "bytes": outcome.bytes,
            "entry": outcome.entry,
            **({} if outcome.finding is None else {"finding": outcome.finding}),
            **own,
        }

    def _spent(self, name: str, number: int) -> float | None:
        """The next computed point of the curve: never below what was spent."""
        return next((epsilon for at, epsilon in self.spent[name] if at >= number), None)


def _by_region(values: Mapping[str, float], unit: str) -> str:
    if len(values) > _SHOWN:
        mean = sum(values.values()) / len(values)
        return f"{amount(mean, unit)}, mean of {len(values)} regions"
    *others, (last, value) = values.items()
    return ", ".join(
        [*(f"{name} {amount(one, unit, bare=True)}" for name, one in others), f"{last} {amount(value, unit)}"]
    )


def _backbone(plan: Plan) -> dict[str, Any]:
    """What is said of a model of which a part is trained."""
    frozen = plan.model.backbone
    return {} if frozen is None else {"backbone": {"sha256": frozen.sha256, "parameters": frozen.size}}


def load_model(folder: Folder) -> nn.Module:
    """The trained model of a run folder."""
    plan = plans.read((folder.path / "plan.json").read_text(encoding="utf-8"))
    task = registry.of(plan.task.name, plan.task.options)
    model = task.model(plan.model.name, plan.model.options, seed=plan.seed)
    backbone.put(model, load_file(folder.model))
    return model.eval()


def epsilon_by_round(plan: Plan, name: str) -> list[tuple[int, float]]:
    """Epsilon after some ten rounds of the plan, the last included; empty where nothing is promised.

    Between the ends it may be a trifle high: on a coarser grid, and never above that of the whole plan.
    """
    mine = plan.region(name)
    if mine.epsilon is None:
        return []
    count = min(plan.num_rounds, _CURVE_POINTS)
    rounds = sorted({max(1, round(plan.num_rounds * part / count)) for part in range(1, count + 1)})
    return [(number, _epsilon_after(plan, name, number, whole=mine.epsilon)) for number in rounds]


def _epsilon_after(plan: Plan, name: str, number: int, *, whole: float) -> float:
    own = plan.rounds_of(name, number)
    if own in (0, plan.rounds_of(name)):
        return whole if own else 0.0
    delta = plan.region(name).target_delta
    return min(whole, accountant.epsilon_pld(plan.events(name, number), delta, coarse=True))


def epsilon_check(plan: Plan, name: str) -> dict[str, float | None] | None:
    """What the two other accountants say of the whole plan; ``prv`` is None where that one gives up.

    Raises:
        AccountingError: they disagree.
    """
    mine = plan.region(name)
    if mine.epsilon is None:
        return None
    events, delta = plan.events(name), mine.target_delta
    try:
        return asdict(accountant.check(events, delta))
    except AccountingError:
        try:
            accountant.epsilon_prv(events, delta)
        except AccountingError:
            return {"pld": mine.epsilon, "prv": None, "rdp": accountant.epsilon_rdp(events, delta)}
        raise
