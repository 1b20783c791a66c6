"""The same run over real regions: the coordinator's side, which never sees a region's data.

Everything about the regions is written in the experiment. ``data.path`` is a table that the coordinator
itself holds, for the learning curve; "none", or a region that the table lacks: its figures are null.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from safetensors.numpy import load_file, save_file

from fedfsd import errors
from fedfsd.audit.receipt import ENDED, Receipt, ReceivedIncident
from fedfsd.config.experiment import Experiment, Region
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.errors import ConfigError, FedfsdError, NotReadyError
from fedfsd.flower import strategy as strategies
from fedfsd.gate.resident import demand_shareable
from fedfsd.ledger.disk import write_whole
from fedfsd.ledger.key import SigningKey
from fedfsd.plan import plan as plans
from fedfsd.plan.build import Roster, build
from fedfsd.plan.plan import Plan
from fedfsd.report import run_folder
from fedfsd.report.run_folder import CONDUCTED, START, Folder
from fedfsd.service import lock, patience
from fedfsd.simulation import track
from fedfsd.simulation.books import write_receipts
from fedfsd.simulation.conduct import checks_of, conduct
from fedfsd.simulation.prepare import Prepared, demand_places, public_of, start_of, task_of, task_plan
from fedfsd.simulation.trail import Progress
from fedfsd.task import registry
from fedfsd.task.task import Task

NO_TABLE = "none"
STOPPED, PROGRESS = "stopped.json", "progress.json"
_LAST_ONE_SECONDS = 60.0
"""A conductor whose run was stopped ends before it was idle for so long."""


def rosters_of(experiment: Experiment) -> dict[str, Roster]:
    """What the experiment writes of its regions. ConfigError names the first thing that is missing."""
    names = sorted(experiment.data.regions or experiment.regions)
    if not names:
        raise ConfigError(
            "regions",
            got="no region",
            expected="a table [regions.NAME] for each",
            hint='write [regions.EU] with roster = 1000 and identity = "physical"',
        )
    return {name: _declared(name, experiment.regions.get(name, Region())) for name in names}


def completed(experiment: Experiment, offered: Mapping[str, Roster]) -> Experiment:
    """``experiment`` with roster and identity as the regions' policies ``offered`` them, where it has none.

    One that names no region is of all that offered theirs.

    Raises:
        ConfigError: it says something else than the region, which would refuse the plan.
    """
    names = sorted(experiment.data.regions or experiment.regions or offered)
    regions = {name: experiment.regions.get(name, Region()) for name in names}
    for name in names:
        if (mine := offered.get(name)) is not None:
            regions[name] = _completed(name, regions[name], mine)
    return experiment.model_copy(update={"regions": {**experiment.regions, **regions}})


def planned(output: Path) -> dict[str, Roster]:
    """What the plan of an interrupted run states of its regions."""
    run_folder.run_of(output)  # for its error
    plan = plans.read((output / "plan.json").read_text(encoding="utf-8"))
    return {name: Roster(one.roster, one.identity, counted=False) for name, one in plan.regions.items()}


def _completed(name: str, written: Region, offered: Roster) -> Region:
    found: dict[str, Any] = {"roster": offered.size, "identity": offered.identity}
    for key, value in found.items():
        if getattr(written, key) not in (None, value):
            raise ConfigError(
                f"regions.{name}.{key}",
                got=getattr(written, key),
                expected=f"{value}, as {name} declares it",
                hint="leave it out here; what the region declares is in its policy.toml",
            )
    return written.model_copy(update=found)


def begin(experiment: Experiment, output: Path) -> tuple[Folder, Plan]:
    """Make the run folder of a new run: experiment, plan, and the arrays that it starts from.

    Raises:
        FedfsdError: whatever is wrong with experiment or model, before anything is written.
    """
    if experiment.mode == "none":
        raise ConfigError(
            "mode", got="none", expected="private", hint="without privacy there is only fedfsd simulate"
        )
    run_folder.demand_new(output)
    strategies.resolve(experiment.server.strategy, experiment.server.options)
    track.of(experiment.track)
    rosters = rosters_of(experiment)
    task = task_of(experiment)
    _public(experiment, task)
    initial, frozen, model = start_of(experiment, task, public_of(experiment, task), rosters)
    plan = build(experiment, rosters, task_plan(task), model)
    demand_places(experiment, plan, task, initial, frozen)
    checks_of(plan)
    where = run_folder.create(output, experiment, plan)
    save_file(initial, where.path / START)
    where.keep_backbone(frozen)
    return where, plan


def again(experiment: Experiment, output: Path) -> tuple[Folder, Plan]:
    """The run folder and plan of an interrupted run. NotReadyError where it is none, or another one's."""
    run_folder.run_of(output)  # for its error
    plan = plans.read((output / "plan.json").read_text(encoding="utf-8"))
    where = run_folder.reopen(output, experiment, plan)
    (where.path / STOPPED).unlink(missing_ok=True)
    return where, plan


def serve(grid: Grid, run: Path, coordinator: Path) -> None:
    """Conduct the run in the folder ``run`` over a real grid, from its checkpoint if it has one.

    Args:
        coordinator: the coordinator's folder: its key, receipts, and the regions' newest heads.

    Raises:
        FedfsdError: what ended the run; stopped.json says it to whoever waits.
    """
    where = Folder(run)
    with _alone(where):
        _serve(grid, where, coordinator)


def _serve(grid: Grid, where: Folder, coordinator: Path) -> None:
    try:
        prepared = _prepared(where)
        conduct(
            prepared,
            where,
            Delivered(where, prepared.plan, coordinator),
            lambda work: work(grid),
            resume=True,
            checks=checks_of(prepared.plan),
            progress=lambda seen: where.write(PROGRESS, asdict(seen)),
        )
    except FedfsdError as error:
        where.write(STOPPED, error.document())
        raise
    except Exception:
        # Nothing private is here: the coordinator holds public tables and noised updates.
        where.write_text("server.log", traceback.format_exc())
        raise
    (where.path / PROGRESS).unlink(missing_ok=True)


def stopped(where: Folder) -> FedfsdError | None:
    """What ended the run, as an error to be raised here; None where nothing did."""
    if not (where.path / STOPPED).exists():
        return None
    found = where.read(STOPPED)
    kinds: dict[str, type[FedfsdError]] = {
        kind.code: kind for kind in vars(errors).values() if _is_error(kind)
    }
    kind = kinds.get(found["code"], NotReadyError)
    return kind(found["place"], got=found["got"], expected=found["expected"], hint=found["hint"])


def is_conducted(where: Folder) -> bool:
    """Whether a process on this machine conducts the run now."""
    return lock.held(where.path / CONDUCTED)


def progress(where: Folder) -> Progress | None:
    """Where the run is; None before its first round and after its end."""
    if not (where.path / PROGRESS).exists():
        return None
    with suppress(NotReadyError):  # gone in this very moment
        return Progress(**where.read(PROGRESS))
    return None


class Delivered:
    """The evidence of a run that crossed a border: what the coordinator's gate countersigned."""

    def __init__(self, where: Folder, plan: Plan, coordinator: Path) -> None:
        self._where, self._plan, self._coordinator = where, plan, coordinator

    def finish(self) -> dict[str, dict[str, Any]]:
        """Receipts and the regions' newest heads, into the run folder; grants are the regions' own."""
        key = SigningKey.read(self._coordinator / "coordinator.key")
        book = self._coordinator / "receipts" / f"{self._plan.hash}.jsonl"
        lines = book.read_bytes().splitlines() if book.exists() else []
        files = sorted((self._coordinator / ENDED / self._plan.hash).glob("*.json"))
        ended = [ReceivedIncident(**json.loads(path.read_bytes())) for path in files]
        write_receipts(self._where, self._plan, [_receipt(line) for line in lines], key, incidents=ended)
        (self._where.path / "checkpoints").mkdir(exist_ok=True)
        for name in self._plan.regions:
            head = self._coordinator / "heads" / f"{name}.note"
            if head.exists():
                write_whole(self._where.path / "checkpoints" / f"{name}.note", head.read_bytes())
        return {}


@contextmanager
def _alone(where: Folder) -> Iterator[None]:
    """Be the only one who conducts the run: an earlier one may still be ending."""
    lock_file = where.path / CONDUCTED
    patience.until(
        lambda: not is_conducted(where), seconds=_LAST_ONE_SECONDS, pids=lambda: lock.holder(lock_file)
    )
    with lock.hold(lock_file, what="a conductor of this run"):
        yield


def _prepared(where: Folder) -> Prepared:
    """The run in a folder that ``begin`` made."""
    experiment = Experiment.resolved(where.read("experiment.json"))
    plan = plans.read((where.path / "plan.json").read_text(encoding="utf-8"))
    task = registry.of(plan.task.name, plan.task.options)
    mine = _public(experiment, task)
    demand_shareable(where.path / START, place=START)
    initial = load_file(where.path / START)
    return Prepared(
        experiment=experiment,
        plan=plan,
        task=task,
        initial={entry.name: initial[entry.name] for entry in plan.model.arrays},
        test={name: task.examples(parts, test=True) for name, parts in mine.items()},
        rosters=rosters_of(experiment),
        licences={name: "; ".join(sorted({part.licence for part in parts})) for name, parts in mine.items()},
        origins={name: sorted({part.origin for part in parts}) for name, parts in mine.items()},
        data_sha256={},
        backbone=None if plan.model.backbone is None else where.backbone.read_bytes(),
    )


def _public(experiment: Experiment, task: Task) -> dict[str, tuple[Table, ...]]:
    """What the coordinator's own table has of each region; a region that it lacks is left out."""
    if experiment.data.path == NO_TABLE:
        return {}
    tables = task.tables(experiment.data.path)
    table.demand_sound(tables)
    found = {name: table.in_region(tables, name) for name in rosters_of(experiment)}
    return {name: parts for name, parts in found.items() if parts}


def _declared(name: str, written: Region) -> Roster:
    if written.roster is None:
        raise _undeclared(name, "roster", "the number of its training vehicle keys", "1000")
    if written.identity is None:
        raise _undeclared(name, "identity", "what a vehicle key of it stands for", '"physical"')
    return Roster(written.roster, written.identity, counted=False)


def _undeclared(name: str, key: str, meaning: str, example: str) -> ConfigError:
    return ConfigError(
        f"regions.{name}.{key}",
        got="nothing",
        expected=f"{meaning}, as the region declares it: its data are not here to be asked",
        hint=f"have its gate connect once, which says it; or write {key} = {example} in [regions.{name}]",
    )


def _receipt(line: bytes) -> Receipt:
    """A line of the receipt book without the region's head and the signature of the single receipt."""
    found = json.loads(line)
    return Receipt(**{name: found[name] for name in Receipt.model_fields})


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, FedfsdError)
