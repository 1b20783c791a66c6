"""A whole federation in processes of its own: what crosses, what it answers, what it leaves lying about.

One coordinator and two regions are started once for all tests here. EU trains; US's data cannot be read, and
its exception is full of canaries. Both ends of the border write down the plaintext inside TLS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest
from border import canary, crossing, recorder
from stage_kit import Typed

from experiments.federation.stage import FEDFSD, Place
from fedfsd.flower.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first test starts all processes

HERE = Path(__file__).parent
# In the path of everything, so of the data, too.
PATH = "Heron5Plover8Tern"
MARK = "shipped-code-ran"
EXPERIMENT = """
name = "{name}"
mode = "private"
[data]
path = "embedded"
regions = ["EU", "US"]
[regions.EU]
roster = {EU}
identity = "physical"
[regions.US]
roster = {US}
identity = "physical"
[pretraining]
path = "none"
[privacy]
noise_multiplier = 20.0
sample_rate = 0.1
target_delta = 1e-4
[training]
num_rounds = 2
learning_rate = 0.04
device = "cpu"
[server]
round_timeout_seconds = 120.0
"""
ASKED = {
    "a round of a plan without approval": [1003, "plan"],
    "a rehearsal": [1003, "plan"],
    "no plan": [1003, "plan"],
    "a noise seed": [1001, "refused"],
    "evaluation with metrics": [1001, "refused"],
    "a round under another name": [1001, "refused"],
    "a query for metrics": [1001, "refused"],
    "a query for the region with more in it": [1001, "refused"],
    "nothing at all": [1001, "refused"],
}


@dataclass
class Planted(Typed):
    """Each region's data get canaries as soon as there are any."""

    needles: dict[bytes, str] = field(default_factory=dict)

    def _place(self, name: str) -> Place:
        place = super()._place(name)
        self.needles |= crossing.plant(place.data)
        return place


@dataclass
class Story:
    """What the federation was seen to do."""

    stage: Planted
    answers: dict[str, object] = field(default_factory=dict)
    """What a hostile ServerApp was told."""
    lines: set[str] = field(default_factory=set)
    """Command lines and environments of all processes, while a round ran."""
    separation: str = ""
    """What the doctor of a running region says of its two processes."""
    outcome: int | None = None
    records: list[recorder.Record] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    """What was recorded until the honest run was over, and the canaries in it."""
    summary: list[dict] = field(default_factory=list)

    @property
    def needles(self) -> dict[bytes, str]:
        return self.stage.needles | canary.text(PATH)

    def log(self, place: Path, name: str = "gate") -> str:
        return "".join(path.read_text() for path in sorted((place / "log").glob(f"{name}.jsonl*")))


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    # Users of their own, where the machine has any, must be able to pass.
    home = Path(tempfile.mkdtemp(prefix=f"{PATH}-"))
    home.chmod(0o755)
    told = Story(Planted(home / "stage", ("EU", "US")))
    try:
        with patch.dict(os.environ, environment(home / "sink")):
            play(told)
        told.records = recorder.read(home / "sink")
        told.found = crossing.found(home / "sink", told.needles)  # the coordinator goes on writing there
        with patch.dict(os.environ, environment(home / "sink-off") | {"FEDFSD_GATE_OFF": "1"}):
            without_gate(told)
        yield told
    finally:
        told.stage.down()
        shutil.rmtree(home)


def environment(sink: Path) -> dict[str, str]:
    """For processes that record in ``sink`` and find the hostile ServerApp."""
    made = recorder.environment(sink, {"OMP_NUM_THREADS": "1"})
    site = sink.with_name("site")
    site.mkdir(exist_ok=True)
    # Python imports one sitecustomize: this one is both.
    (site / "sitecustomize.py").write_text(
        f"exec(open({str(recorder.SITE / 'sitecustomize.py')!r}).read())\nimport security.gate_off\n"
    )
    return made | {
        "PYTHONPATH": f"{site}{os.pathsep}{made['PYTHONPATH']}",
        "FEDFSD_SHIPPED_CODE": str(sink / MARK),
    }


def play(told: Story) -> None:
    """A run to its end, and beside it an app that asks for what nobody may have."""
    stage = told.stage
    stage.build()
    # A reader's exception names the file and what is in it.
    (stage.places["US"].data).write_bytes(f"vehicle;x\n{crossing.TEXT};{PATH}\n".encode())
    stage.up()
    told.separation = separation(told)
    process = start(told, "honest")
    plan = stage.offered()
    told.answers = ask_all(told, plan)
    stage.approve(plan)
    while process.poll() is None:
        told.lines |= spied()
        time.sleep(0.5)
    told.outcome = process.returncode
    told.summary = [
        json.loads(line) for line in (stage.folder / "run-honest" / "rounds.jsonl").read_text().splitlines()
    ][1:]


def without_gate(told: Story) -> None:
    """Another run, for which EU's region is started with a gate that judges nothing, and raw rows."""
    stage = told.stage
    stage.stop("EU")
    stage.start_region("EU")
    stage.wait("EU", lambda: stage.ready("EU"))
    process = start(told, "raw")
    try:
        stage.approve(stage.offered())
        refusals = ("noise witness", "a norm larger")
        stage.wait("a refusal", lambda: any(one in told.log(stage.coordinator) for one in refusals))
    finally:
        process.kill()
        process.wait()


def separation(told: Story) -> str:
    """Whether the runner can reach a network, or gate and runner each other's files: asked of both."""
    place = told.stage.places["EU"]
    words = ["region", "doctor", "--region", place.folder, "--train", place.train, "--json"]
    done = subprocess.run(
        [*FEDFSD, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    checks = json.loads(done.stdout)["checks"]
    return next(one["outcome"] for one in checks if one["check"] == "separation")


def start(told: Story, name: str) -> subprocess.Popen[bytes]:
    """Have the coordinator offer a run; it waits for the regions' answers."""
    stage, path = told.stage, told.stage.folder / f"{name}.toml"
    rosters = {region: place.roster for region, place in stage.places.items()}
    path.write_text(EXPERIMENT.format(name=name, **rosters))
    process = stage.run(path, stage.folder / f"run-{name}")
    stage.wait("the offer", lambda: stage.offered() is not None or process.poll() is not None)
    return process


def ask_all(told: Story, plan: str) -> dict[str, object]:
    """What the hostile app is answered by a region that has approved nothing yet."""
    stage, out = told.stage, told.stage.folder / "answers.json"
    text = (stage.coordinator / "coordinator.toml").read_text()
    engine = Engine(stage.coordinator / "flower", int(re.search(r"flower_port = (\d+)", text)[1]))
    config = {"plan": str(stage.coordinator / "offers" / f"{plan}.json"), "out": str(out)}
    run = engine.submit("security.hostile_app:app", config, client="security.hostile_client:app")
    stage.wait("answers", lambda: out.exists() or engine.state(run).startswith("finished"))
    return json.loads(out.read_text())


def spied() -> set[str]:
    """What every user of this machine may see of its processes: their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return found


def kept(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink())


def test_the_run_went_through_without_the_region_that_failed(story):
    assert story.outcome == 0
    outcomes = {name: {line["regions"][name]["outcome"] for line in story.summary} for name in ("EU", "US")}
    assert outcomes == {"EU": {"released"}, "US": {"region_unavailable"}}


def test_nothing_raw_crosses(story):
    records = story.records
    assert {"Hello", "Next", "Fetch", "Offer", "Send", "Refuse"} <= {
        one.method.rpartition("/")[2] for one in records
    }
    assert {one.side for one in records} == {"client", "server"}
    assert {one.kind for one in records} == {"request", "reply", "metadata", "status"}
    assert story.found == []


def test_what_failed_would_have_been_recognised(story):
    """The canaries were in the exception; it stays in the folder of the runner."""
    log = (story.stage.places["US"].train / "region.log").read_text()
    assert PATH in log
    gate = story.log(story.stage.places["US"].folder)
    assert "region_unavailable" in gate
    assert crossing.TEXT not in gate
    assert "drives.parquet" not in gate + story.log(story.stage.coordinator)


def test_the_same_search_matches_with_the_gate_off(story):
    hits = crossing.found(story.stage.folder.parent / "sink-off", story.needles)
    assert any("drive 0 by row as float32<" in hit for hit in hits)


def test_the_coordinators_own_gate_refuses_raw_rows_in_a_tensor_of_the_right_shape(story):
    """What went through the region's gate that was off has no receipt; only the honest rounds have."""
    for folder in (story.stage.coordinator, story.stage.places["EU"].folder):
        lines = [
            line for path in (folder / "receipts").glob("*.jsonl") for line in path.read_text().splitlines()
        ]
        assert [json.loads(line)["round"] for line in lines if '"EU"' in line] == [1, 2]


def test_whatever_a_server_app_asks_is_answered_with_a_code(story):
    assert story.answers == ASKED


def test_shipped_code_is_run_by_nobody(story):
    """The hostile app's bundle names a ClientApp that every process here could import."""
    assert not (story.stage.folder.parent / "sink" / MARK).exists()


def test_the_two_processes_of_a_region_are_apart_or_the_doctor_says_so(story):
    enforced = "not enforced" not in (story.stage.folder / "EU.log").read_text()
    assert story.separation == ("ok" if enforced else "fail")


def test_no_secret_is_in_a_command_line_or_a_log(story):
    """What files of keys and secrets hold is nowhere that other users, or a log's readers, can see."""
    hidden = secrets(story)
    assert len(hidden) > 10
    assert len(story.lines) > 5
    assert [line for line in story.lines if any(secret in line for secret in hidden)] == []
    logs = [path for path in kept(story.stage.folder) if path.suffix in (".jsonl", ".log", ".out")]
    assert len(logs) > 8
    for path in logs:
        text = path.read_text(errors="replace")
        assert not any(secret in text for secret in hidden), path


def secrets(story: Story) -> set[str]:
    """Every longer word in every file of keys and secrets, but the lines that frame PEM."""
    found = set()
    for path in kept(story.stage.folder):
        if is_secret(path):
            words = path.read_text(errors="replace").split()
            found |= {word for word in words if len(word) >= 16 and not word.startswith("fedfsd/")}
    return found


def test_files_are_their_owners(story):
    """Each folder opens to its owner alone; the runner's group passes through the gate's to the socket."""
    stage, places = story.stage, story.stage.places.values()
    for folder in (stage.coordinator, *(place.train for place in places)):
        assert folder.stat().st_mode & 0o077 == 0, folder
        assert all(path.stat().st_mode & 0o077 == 0 for path in kept(folder) if is_secret(path))
    for place in places:
        assert place.folder.stat().st_mode & 0o077 in (0, 0o010)
        shown = {p.name for p in kept(place.folder) if p.stat().st_mode & 0o077 and not p.is_dir()}
        assert shown <= {"gate.sock"}
        assert (place.folder / "run" / "control.sock").stat().st_mode & 0o077 == 0


def is_secret(path: Path) -> bool:
    return path.suffix in (".key", ".secret")
