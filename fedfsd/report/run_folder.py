"""The run folder: every file a run leaves, written whole or not at all.

| file | what |
|---|---|
| README.md | what may be handed on, and what not |
| experiment.json | the resolved experiment |
| plan.json | the plan, canonical |
| rounds.jsonl | a line a round, with what came late in it; round 0 is the public start |
| checkpoint.safetensors | state after the last finished round, for --resume |
| model.safetensors | the trained model, without the noise witness block |
| backbone.safetensors | the weights that were not trained, where the plan names such |
| metrics.json | figures per region and pooled; its presence marks the run complete |
| examples.npz | a few test examples with the model's output, as the task shows them |
| figures/, report.html | pictures and the page |
| regions/R/ | what region R keeps: ledger, mirror, outbox, keys |
| bundles/R.zip | what an auditor gets from region R |
| checkpoints/R.note | the newest head of R's ledger, cosigned by the coordinator |
| receipts.json | what the coordinator received, signed; covers this run |
| releases/R.N | the update that region R released in round N, if all of the plan's fit in a gigabyte |
| watch/ | what statistics over rounds remember of the updates |
| trust.keys | the public keys, to be checked with; of a simulation |
| start.safetensors | the arrays that a run over real regions starts from |
| progress.json, stopped.json, server.log | of such a run: where it is, what ended it |
| format.json | ``{"format": n}`` of this folder's layout; none is written for format 1 |
| track.json | the trackers that are told of the run, with their options |
| conducted.lock | held by the process that conducts the run |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fedfsd import formats
from fedfsd.config.experiment import Experiment
from fedfsd.errors import NotReadyError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.outcome import LATE_DROPPED, LATE_USED, RELEASED
from fedfsd.ledger.disk import write_whole
from fedfsd.plan.plan import Arrays, Plan

RELEASES = "releases"
_PACE = 20  # rounds whose pace counts
MOST_KEPT = 2**30
"""Bytes of all releases of a plan above which none is kept."""
START, FORMAT, CONDUCTED = "start.safetensors", "format.json", "conducted.lock"
TRACK = "track.json"
EXAMPLES, PICTURED = "examples.npz", "figures/examples.svg"
README = """\
# {name}

One run of fedfsd: `plan.json` is what was agreed, `report.html` how it went.

| what | who may have it |
|---|---|
| `model.safetensors`, `plan.json` | whoever may use the model |
| `bundles/`, `checkpoints/`, `receipts.json`, `trust.keys`, `releases/` | an auditor |
| `examples.npz`, `figures/examples.svg`, and their picture in `report.html` | whoever may see the data |
| `regions/` | nobody |

The examples are a few test windows as they were recorded. `regions/` has the private keys of a simulation
and, while the run has not reached its end, the run keys in `regions/*/keys/`: whoever has a run key and an
update can take the noise off it. `fedfsd clean` on this folder destroys the run keys and removes the
examples; an interrupted run cannot be resumed after that.
"""


@dataclass(frozen=True)
class Folder:
    """Paths of one run."""

    path: Path

    def demand_known(self) -> None:
        """FormatError where a newer release laid out this folder."""
        path = self.path / FORMAT
        if path.exists():
            formats.demand_known("run folder", formats.peek(path.read_bytes()), place=str(path))

    @property
    def complete(self) -> bool:
        """Whether the run reached its end."""
        return (self.path / "metrics.json").exists()

    @property
    def real(self) -> bool:
        """Whether it ran over real regions, not in a simulation."""
        return (self.path / START).exists()

    @property
    def checkpoint(self) -> Path:
        """State after the last finished round."""
        return self.path / "checkpoint.safetensors"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.path / "model.safetensors"

    @property
    def backbone(self) -> Path:
        """The weights that are not trained: what real regions are handed."""
        return self.path / "backbone.safetensors"

    def keep_backbone(self, content: bytes | None) -> None:
        """Write the weights that are not trained, if there are any."""
        if content is not None:
            write_whole(self.backbone, content)

    def region(self, name: str) -> Path:
        """What one region keeps to itself."""
        return self.path / "regions" / name

    def write(self, name: str, document: Any) -> None:
        """Write a JSON document; numbers that are not finite become null."""
        self.write_text(name, json.dumps(finite(document), indent=1, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole."""
        part = self.path / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self.path / name)

    def read(self, name: str) -> Any:
        """Read a JSON document. NotReadyError: the run has none. FormatError: a newer release wrote it."""
        self.demand_known()
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise NotReadyError(
                str(self.path / name),
                got="nothing readable",
                expected="a file of a run folder",
                hint="point at a folder that fedfsd simulate wrote",
            ) from None

    def rounds(self) -> list[dict[str, Any]]:
        """The lines of rounds.jsonl; a line that a crash left unfinished is dropped."""
        self.demand_known()
        path = self.path / "rounds.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def append_round(self, line: dict[str, Any]) -> None:
        """Add one line to rounds.jsonl."""
        with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(line), allow_nan=False) + "\n")

    def keep_release(self, plan: Plan, region: str, round: int, update: Arrays) -> None:
        """Keep what a region released, for whoever audits it; of a plan with large ones nothing."""
        if 4 * plan.model.size * plan.num_rounds * len(plan.regions) > MOST_KEPT or plan.mode == "none":
            return
        path = self.path / RELEASES / f"{region}.{round}"
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{round}.part")
        part.write_bytes(gate_arrays.to_bytes(update, plan.model.arrays))
        part.replace(path)

    def keep_rounds(self, last: int) -> None:
        """Drop the lines after round ``last``: a resumed run writes them again."""
        kept = [line for line in self.rounds() if line["round"] <= last]
        self.write_text("rounds.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def releases(line: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Every release that reached the coordinator in a line of rounds.jsonl: region, own round, facts."""
    for name, found in line["regions"].items():
        if found.get("outcome") == RELEASED:
            yield name, found.get("own_round", line["round"]), found
    for found in line.get("late", ()):
        if found["outcome"] in (LATE_USED, LATE_DROPPED):
            yield found["region"], found.get("own_round", found["round"]), found


def seconds_left(seconds: Sequence[float], todo: int) -> float | None:
    """How long ``todo`` rounds take at the pace of the last ones, given what each took so far.

    None as long as only the first is known: in it, the regions load their data.
    """
    return median(seconds[1:][-_PACE:]) * todo if len(seconds) > 1 else None if todo else 0.0


def demand_new(path: Path) -> None:
    """NotReadyError where something is at ``path`` already: to be asked before the work."""
    if path.is_file() or (path.exists() and any(path.iterdir())):
        raise NotReadyError(
            str(path),
            got="a file" if path.is_file() else "a folder that is not empty",
            expected="a new folder",
            hint="choose another -o, or continue an interrupted run with --resume",
        )


def create(path: Path, experiment: Experiment, plan: Plan) -> Folder:
    """Make a new run folder. NotReadyError where something is there already."""
    demand_new(path)
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    folder.write("experiment.json", experiment.document())
    folder.write_text("plan.json", plan.document())
    folder.write_text("README.md", README.format(name=experiment.name))
    folder.write(TRACK, experiment.track)
    return folder


def reopen(path: Path, experiment: Experiment, plan: Plan) -> Folder:
    """An interrupted run of the same experiment and plan.

    Raises:
        NotReadyError: no such run, another experiment or plan, or a run that is complete.
    """
    folder = Folder(path)
    same = Experiment.resolved(folder.read("experiment.json")).document() == experiment.document()
    if not same or (path / "plan.json").read_text(encoding="utf-8") != plan.document():
        raise NotReadyError(
            str(path),
            got="a run of another experiment",
            expected="the same experiment, data and versions",
            hint="give the same file and --set, or choose another -o",
        )
    if folder.complete:
        raise NotReadyError(
            str(path), got="a complete run", expected="an interrupted one", hint="see its report.html"
        )
    folder.write(TRACK, experiment.track)
    return folder


def run_of(path: Path) -> str:
    """The id of the run in a folder. NotReadyError where there is none."""
    return str(Folder(path).read("plan.json").get("run"))


def free(parent: Path, name: str) -> Path:
    """``parent/name``, or the first of name-2, name-3, ... that is not taken."""
    path, number = parent / name, 2
    while path.exists():
        path, number = parent / f"{name}-{number}", number + 1
    return path


def newest(parent: Path, name: str) -> Path:
    """The interrupted run of that name started last. NotReadyError where there is none."""
    found = [
        path
        for path in parent.glob(f"{name}*")
        if (path / "plan.json").exists() and not Folder(path).complete
    ]
    if not found:
        raise NotReadyError(
            str(parent / name),
            got="no interrupted run",
            expected="one to resume",
            hint="name its folder with -o",
        )
    return max(found, key=lambda path: (path / "plan.json").stat().st_mtime)


def finite(document: Any) -> Any:
    """``document`` with NaN and infinities as None: JSON has no words for them."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return document
