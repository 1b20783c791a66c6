"""Trackers: a run's figures, as they come, in MLflow, TensorBoard, Weights & Biases or another tracker.

A tracker is told what the run folder says (its figures and settings, nothing of the data), so what it keeps
may go wherever the run's figures may go. A tracker that fails is left out for the rest of the run: a run that
spends budget does not end because a log cannot be written. Its package, options and address are asked for
before the run. Passwords and API keys come from the environment, as each library documents.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import Frozen, dotted
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.plain_text import plain
from fedfsd.report.run_folder import TRACK, Folder

GROUP = "fedfsd.trackers"
Settings = Mapping[str, Any]
Figures = Mapping[str, float]


class Tracker(Protocol):
    """One place where figures go. Made with its options before the run; ``begin`` opens it."""

    def begin(self, run: Path, settings: Settings) -> None:
        """A run begins, or is resumed, in the folder ``run``; settings by dotted key of the experiment."""

    def log(self, step: int, figures: Figures) -> None:
        """Figures after round ``step``, such as ``fde_m/EU``, ``epsilon/EU``, ``round_seconds``."""

    def end(self, figures: Figures, files: Sequence[Path]) -> None:
        """The run is complete: final figures (``fde_m/pooled``) and the files to keep with it."""

    def close(self, *, complete: bool) -> None:
        """Nothing more comes; called once after ``begin``, also after an error."""


class Mlflow:
    """An MLflow run: a database file beside the runs by default, or the server at ``uri``."""

    class Options(Frozen):
        """[track.mlflow]"""

        uri: str = ""
        """The tracking URI; MLFLOW_TRACKING_URI or mlflow.db beside the run folders if left out."""
        experiment: str = "fedfsd"

    def __init__(self, **options: Any) -> None:
        import mlflow

        self._options = self.Options(**options)
        self._mlflow = mlflow

    def begin(self, run: Path, settings: Settings) -> None:
        """Find the experiment, start a run named like the folder."""
        import os

        uri, beside = self._options.uri or os.environ.get("MLFLOW_TRACKING_URI"), run.parent.resolve()
        self._client = self._mlflow.MlflowClient(uri or f"sqlite:///{beside / 'mlflow.db'}")
        name = self._options.experiment
        known = self._client.get_experiment_by_name(name)
        # With a database alone MLflow would put files into the folder that the process happens to be in.
        place = None if uri else (beside / "mlartifacts").as_uri()
        number = known.experiment_id if known else self._client.create_experiment(name, place)
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._run, key, value)

    def log(self, step: int, figures: Figures) -> None:
        """One batch a round."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        batch = [Metric(key, value, now, step) for key, value in figures.items()]
        self._client.log_batch(self._run, metrics=batch)

    def end(self, figures: Figures, files: Sequence[Path]) -> None:
        """Final figures are metrics too; files become artifacts."""
        for key, value in figures.items():
            self._client.log_metric(self._run, f"final/{key}", value)
        for path in files:
            self._client.log_artifact(self._run, str(path))

    def close(self, *, complete: bool) -> None:
        """FINISHED or KILLED."""
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")


class TensorBoard:
    """Event files under ``tensorboard/`` beside the run folders, or in ``folder``."""

    class Options(Frozen):
        """[track.tensorboard]"""

        folder: str = ""

    def __init__(self, **options: Any) -> None:
        from torch.utils import tensorboard

        self._options = self.Options(**options)
        self._make = tensorboard.SummaryWriter

    def begin(self, run: Path, settings: Settings) -> None:
        """Open an event file; the settings are its text."""
        parent = Path(self._options.folder) if self._options.folder else run.parent / "tensorboard"
        self._writer = self._make(str(parent / run.name))
        self._writer.add_text(
            "settings", "\n".join(f"    {key} = {value}" for key, value in settings.items())
        )

    def log(self, step: int, figures: Figures) -> None:
        """A scalar for each figure."""
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def end(self, figures: Figures, files: Sequence[Path]) -> None:  # noqa: ARG002
        """Final figures; event files hold no files."""
        for key, value in figures.items():
            self._writer.add_scalar(f"final/{key}", value)

    def close(self, *, complete: bool) -> None:  # noqa: ARG002
        """Close the event file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; offline unless ``mode`` says otherwise: online sends it to their servers."""

    class Options(Frozen):
        """[track.wandb]"""

        project: str = "fedfsd"
        mode: Literal["offline", "online"] = "offline"
        folder: str = ""
        """Where its files go; beside the run folders if left out."""

    def __init__(self, **options: Any) -> None:
        import wandb

        self._options = self.Options(**options)
        self._wandb = wandb

    def begin(self, run: Path, settings: Settings) -> None:
        """Start a run named like the folder."""
        folder = Path(self._options.folder) if self._options.folder else run.parent
        folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=self._options.project,
            name=run.name,
            mode=self._options.mode,
            dir=str(folder),
            config=dict(settings),
            settings=self._wandb.Settings(silent=True, disable_git=True, disable_code=True, console="off"),
        )

    def log(self, step: int, figures: Figures) -> None:
        """One row a round."""
        self._run.log(dict(figures), step=step)

    def end(self, figures: Figures, files: Sequence[Path]) -> None:
        """Final figures are its summary; files are kept with the run."""
        self._run.summary.update({f"final/{key}": value for key, value in figures.items()})
        for path in files:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self, *, complete: bool) -> None:
        """Exit code 0 or 1."""
        self._run.finish(exit_code=0 if complete else 1)


OWN: Mapping[str, Callable[..., Tracker]] = {"mlflow": Mlflow, "tensorboard": TensorBoard, "wandb": Wandb}
"""By the name in [track]; each needs the extra ``track-NAME``."""


@dataclass
class Trackers:
    """All trackers of a run as one that never raises."""

    working: dict[str, Tracker]
    complain: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
    _open: set[str] = field(default_factory=set)

    def begin(self, run: Path, settings: Settings) -> None:
        """Open all of them."""
        for name in list(self.working):
            self._open.add(name)
            self._each([name], lambda one: one.begin(run, settings))

    def log(self, step: int, figures: Figures) -> None:
        """Tell all of them of a round."""
        self._each(list(self.working), lambda one: one.log(step, figures))

    def end(self, figures: Figures, files: Sequence[Path]) -> None:
        """Tell all of them that the run is complete."""
        self._each(list(self.working), lambda one: one.end(figures, files))

    def close(self, *, complete: bool) -> None:
        """Close those that were opened, each once."""
        names = [name for name in self.working if name in self._open]
        self._open.clear()
        self._each(names, lambda one: one.close(complete=complete))

    def _each(self, names: Iterable[str], call: Callable[[Tracker], None]) -> None:
        for name in names:
            try:
                call(self.working[name])
            except Exception as error:  # a library of somebody else, whatever goes wrong in it
                failed = self.working.pop(name)
                self.complain(
                    f"{plain(name)}: failed ({type(error).__name__}); the run goes on without this tracker"
                )
                if name in self._open:
                    self._open.discard(name)
                    try:
                        failed.close(complete=False)
                    except Exception:  # it failed already, and was said to
                        continue


def of(chosen: Mapping[str, Mapping[str, Any]]) -> Trackers:
    """The trackers that an experiment's [track] names, not begun yet.

    Raises:
        ConfigError: no tracker of that name, or options it does not know.
        NotReadyError: its package is not installed.
    """
    return Trackers({name: _one(name, options) for name, options in chosen.items()})


def _one(name: str, options: Mapping[str, Any]) -> Tracker:
    make, hint = OWN.get(name), f'pip install -e ".[track-{name}]"'
    if make is None:
        found = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
        if name not in found:
            raise ConfigError(
                f"track.{name}",
                got="an unknown tracker",
                expected=" | ".join(sorted({*OWN, *found})),
                hint="choose one of them, or install the package that registers it",
            )
        make, hint = found[name].load(), "install what its package needs"
    try:
        return make(**options)
    except ModuleNotFoundError as error:
        raise NotReadyError(
            f"track.{name}", got=f"no module {error.name}", expected="its library", hint=hint
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise ConfigError(
            f"track.{name}.{key}", got=first["msg"], hint=f"see [track.{name}] in the docs"
        ) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"track.{name}", got=error, expected=f"options of {name}") from None


@contextmanager
def following(where: Folder, experiment: Experiment) -> Iterator[Trackers]:
    """The trackers that the run folder names, told that the run begins and, at the end, how it ended."""
    trackers = of(where.read(TRACK) if (where.path / TRACK).exists() else {})
    trackers.begin(where.path, dotted(experiment.document()))
    complete = False
    try:
        yield trackers
        complete = True
    finally:
        trackers.close(complete=complete)
