"""The region's doctor: a fit region, then one broken thing at a time, each told with its fix."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import drives
from operator_kit import plan, send
from operator_kit import region as ready
from pki_kit import Callers, hub_border

from fedfsd import canonical
from fedfsd.border import authority, identity
from fedfsd.coordinator import invite, new_coordinator
from fedfsd.coordinator.folder import Coordinator
from fedfsd.drive import table
from fedfsd.errors import NotReadyError
from fedfsd.node import doctor, join, operation, region_gate, separation
from fedfsd.node.control import Control
from fedfsd.node.doctor import Patient, examine
from fedfsd.node.node import open_node
from fedfsd.service import diagnosis, lock
from fedfsd.service.diagnosis import CheckResult

CALLERS = Callers()
TODAY = datetime.datetime.now(datetime.UTC).date()
FIT = separation.Separation(
    data=True, device="cpu", tcp=False, gate_folder=False, gate_reads_data=False, asked="asked of a test"
)


SAID = {"said": "EU: 9 of 9 training vehicles have a window; roster 9", "wrong": []}


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Coordinator:
    return new_coordinator.make(
        new_coordinator.settings("hub", port=0), tmp_path_factory.mktemp("hub") / "hub"
    )


@pytest.fixture(scope="module")
def address(hub) -> Iterator[str]:
    """Where its border answers."""
    with hub_border(hub, CALLERS) as found:
        yield found


@pytest.fixture(scope="module")
def joined(hub, tmp_path_factory) -> Path:
    """A region that joined, with a grant."""
    folder = ready(tmp_path_factory.mktemp("eu"))
    edit("policy.toml", "round_seconds = 0.0", "round_seconds = 10.0")(folder)  # as region init writes it
    node = open_node(folder)
    request = join.prepare(node, invite.invite(hub, "EU", today=TODAY), officer=None)
    invite.accept(hub, "EU", request)
    invite.confirm(hub, "EU", said=request.fingerprint)
    shutil.copy(hub.region("EU") / "region.crt", folder / "tls.next" / "region.crt")
    (folder / "tls.next" / "region.crt").chmod(0o600)
    join.peer(node)
    return folder


@pytest.fixture
def folder(joined, tmp_path, address) -> Path:
    """A copy of it, to be broken."""
    made = tmp_path / "eu"
    shutil.copytree(joined, made)
    text = (made / "region.toml").read_text()
    (made / "region.toml").write_text(text.replace('coordinator = ""', f'coordinator = "{address}"'))
    return made


def patient(
    folder: Path,
    facts: separation.Separation = FIT,
    survey=lambda *_: [SAID],
    replay=lambda _, plans: [[] for _ in plans],
) -> Patient:
    return Patient(
        open_node(folder), folder / "train", TODAY, ask=lambda *_: facts, survey=survey, replay=replay
    )


def found(folder: Path, check: str, facts: separation.Separation = FIT) -> CheckResult:
    """The finding of ``check``; every other check still gives one."""
    findings = {one.check: one for one in examine(patient(folder, facts))}
    assert list(findings) == [one.__name__ for one in doctor.CHECKS]
    return findings[check]


def test_a_fit_region(folder):
    outcomes = {one.check: one.outcome for one in examine(patient(folder))}
    assert outcomes.pop("mirror") == "warn"  # a test has one disk
    assert set(outcomes.values()) == {"ok"}, outcomes
    assert not CALLERS.seen  # a second Hello of one region would look like a second node


def edit(name: str, old: str, new: str):
    def broken(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return broken


def plans(*some) -> object:
    def broken(folder: Path) -> None:
        (folder / "plans").mkdir()
        for number, one in enumerate(some):
            send(folder / "plans", one, f"{number}.json")

    return broken


def future(folder: Path) -> None:
    later = time.time() + 86_400
    os.utime(folder / "ledger" / "ledger.sqlite", (later, later))


def open_files(folder: Path) -> None:
    (folder / "tls" / "region.key").chmod(0o644)


def open_folder(folder: Path) -> None:
    folder.chmod(0o755)


def no_key(folder: Path) -> None:
    next((folder / "ledger").glob("*.key")).unlink()


def no_ledger(folder: Path) -> None:
    (folder / "ledger" / "ledger.sqlite").unlink()


def no_certificate(folder: Path) -> None:
    shutil.rmtree(folder / "tls")


def other_key(folder: Path) -> None:
    (folder / "tls" / "region.key").unlink()
    authority.write_key(authority.new_key(), folder / "tls" / "region.key")


BREAKS = [
    ("policy", "fail", edit("policy.toml", "roster = 1000", "# roster = 1000"), "roster"),
    ("policy", "fail", edit("region.toml", 'purpose = "research"', 'purpose = ""'), "purpose"),
    ("policy", "fail", edit("region.toml", "coordinator/hub", "coordinator/other"), "recipient"),
    ("policy", "warn", edit("policy.toml", "round_seconds = 10.0", "round_seconds = 0.0"), "longer than"),
    ("policy", "warn", edit("policy.toml", "size = 1024", "size = 300"), "min_witness_size"),
    ("policy", "warn", edit("policy.toml", "size = 1024", "size = 0"), "min_witness_size"),
    ("keys", "fail", open_files, "chmod"),
    ("keys", "fail", open_folder, "chmod"),
    ("keys", "fail", no_key, "node.key"),
    ("ledger", "fail", no_ledger, "fedfsd region"),
    ("clock", "fail", future, "set the clock"),
    ("certificate", "fail", no_certificate, "--join"),
    ("certificate", "fail", other_key, "new invitation"),
    (
        "coordinator",
        "fail",
        edit("region.toml", 'coordinator = "127', 'coordinator = "127.0.0.1:1" #'),
        "TCP",
    ),
    ("plans", "warn", plans(plan(roster=999)), "widen"),
    ("plans", "warn", plans(plan()), "fedfsd region approve"),
    ("plans", "fail", lambda folder: (plans()(folder), send_broken(folder)), "versions of both sides"),
]


def send_broken(folder: Path) -> None:
    (folder / "plans" / "a.json").write_text("{}")


@pytest.mark.parametrize(("check", "outcome", "breaking", "fix"), BREAKS)
def test_one_broken_thing_is_told_with_its_fix(folder, check, outcome, breaking, fix):
    breaking(folder)
    told = found(folder, check)
    assert told.outcome == outcome, told
    assert fix in f"{told.found} {told.fix}"


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"data": False}, "data", "cannot read"),
        ({"device": None}, "accelerator", "no such device"),
        ({"tcp": True}, "separation", "the runner can open a network connection"),
        ({"gate_folder": True}, "separation", "the runner can read the gate's keys"),
        ({"gate_reads_data": True}, "separation", "the gate can read the data"),
    ],
)
def test_what_a_process_may_not_do_fails(folder, change, check, words):
    told = found(folder, check, replace(FIT, **change))
    assert (told.outcome, words in told.found) == ("fail", True), told
    assert told.fix


def test_a_gate_of_which_nothing_is_known_is_no_success(folder):
    assert found(folder, "separation", replace(FIT, gate_reads_data=None)).outcome == "warn"


def test_nobody_to_ask_fails_three_checks_and_no_other(folder):
    def silent(*_: object) -> separation.Separation:
        raise NotReadyError("runner", got="could not ask", hint="start it")

    findings = examine(replace(patient(folder), ask=silent))
    assert {one.check for one in findings if one.outcome == "fail"} == {"data", "accelerator", "separation"}


def issue(hub: Coordinator, folder: Path, **options: float) -> None:
    """Another certificate for the region's key."""
    key = authority.read_key(folder / "tls" / "region.key")
    party = identity.region("hub", "EU")
    made = authority.Authority.read(hub.ca).issue(party, key.public_key(), **options)
    authority.write_certificate(made, folder / "tls" / "region.crt")


def test_a_certificate_that_ends_soon_or_ended(hub, folder):
    issue(hub, folder, days=10)
    assert found(folder, "certificate").outcome == "warn"
    issue(hub, folder, days=-0.5)
    told = found(folder, "certificate")
    assert (told.outcome, "new invitation" in str(told.fix)) == ("fail", True)
    assert "handshake" in found(folder, "coordinator").found


def test_a_clock_that_is_not_the_coordinators(folder, monkeypatch):
    assert "not compared" in found(folder, "clock").found  # an older coordinator does not say
    for ahead, outcome in ((7200, "fail"), (-7200, "fail"), (20, "ok")):
        monkeypatch.setattr(CALLERS, "behind", ahead)
        told = found(folder, "clock")
        assert told.outcome == outcome
        if outcome == "fail":
            assert told.found == f"2 h 0 min {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
            assert "set the clock" in str(told.fix)


def test_what_comes_by_itself_waits(hub, folder):
    (folder / "tls").rename(folder / "tls.next")
    (folder / "tls.next" / "region.crt").unlink()
    for check in ("certificate", "coordinator", "clock"):
        told = found(folder, check)
        assert (told.outcome, "region up" in str(told.fix)) == ("waits", True), told
    shutil.rmtree(folder / "tls.next")
    assert found(folder, "certificate").outcome == "fail"  # nobody invited it
    (folder / "ledger" / "ledger.sqlite").unlink()
    assert found(folder, "ledger").outcome == "fail"
    assert [found(folder, one).outcome for one in ("budget", "plans", "mirror")] == ["waits"] * 3


def test_a_revoked_certificate(hub, folder):
    listed = hub.revoked.read_text()
    serial = identity.read((folder / "tls" / "region.crt").read_bytes()).serial_number
    hub.revoked.write_text(f"{serial:x} EU\n")
    try:
        told = found(folder, "coordinator")
    finally:
        hub.revoked.write_text(listed)
    assert (told.outcome, "revoked" in str(told.fix)) == ("fail", True)


def test_a_grant_that_is_used_up(folder):
    one = patient(folder)
    grants = one.status["grants"]
    grants[0]["left"] = grants[0]["rho_max"] // 20
    assert doctor.budget(one).outcome == "warn"
    grants[0]["left"] = 0
    assert doctor.budget(one).outcome == "fail"
    grants.clear()
    assert doctor.budget(one).fix == "fedfsd region grant"


def test_a_disk_that_is_full(folder, monkeypatch):
    usage = shutil.disk_usage(folder)
    for free, outcome in ((10**8, "fail"), (10**9, "warn"), (10**11, "ok")):
        monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert diagnosis.disk("disk", folder).outcome == outcome


def test_what_was_started_for_the_question_answers(folder, tmp_path, monkeypatch):
    """No gate runs: a runner's process is started with --facts, and another user's rights are tried."""
    calls = []

    def run(command: list[str]):
        calls.append(command)
        facts = {"region": "EU", "data": True, "device": "cpu", "tcp": False, "gate_folder": False}
        asked = "--facts" in command
        return separation.subprocess.CompletedProcess(command, 0 if asked else 1, json.dumps(facts), "")

    monkeypatch.setattr(separation, "_run", run)
    monkeypatch.setattr(separation.launch, "obstacle", lambda **_: None)
    (folder / "train").mkdir()
    (folder / "train" / "train.toml").write_text(f'data_path = "{tmp_path}/tables"\n')
    told = separation.ask(open_node(folder), folder / "train", "hub.example:1")
    assert told == replace(FIT, asked=told.asked)
    assert "--no-network" in calls[0]
    assert calls[0][-1] == "hub.example:1"
    assert calls[1][-1] == f"{tmp_path}/tables"
    (folder / "train" / "train.toml").unlink()
    assert separation.ask(open_node(folder), folder / "train", "").gate_reads_data is None
    monkeypatch.setattr(
        separation, "_run", lambda command: separation.subprocess.CompletedProcess(command, 1, "", "no")
    )
    with pytest.raises(NotReadyError, match="no runner is running"):
        separation.ask(open_node(folder), folder / "train", "")


def test_what_a_process_can_read(tmp_path):
    assert diagnosis.can_read(tmp_path)
    assert not diagnosis.can_read(tmp_path / "none")
    reads = separation._reads(None, tmp_path)
    assert reads is True
    assert separation._reads(None, tmp_path / "none") is False


class Trainer:
    """A runner that notes what it was asked."""

    connected = True

    def facts(self, **asked: object) -> dict[str, object]:
        self.asked = asked
        return {"data": True, "device": "cpu", "tcp": False, "gate_folder": False}


def test_the_running_gate_answers_for_both(folder, tmp_path):
    trainer, train = Trainer(), tmp_path / "train"
    (tmp_path / "tables").mkdir()
    train.mkdir()
    (train / "train.toml").write_text('data_path = "../tables"\n')
    station = SimpleNamespace(node=open_node(folder), working=False, runner=trainer)
    operations = operation.operations(station, SimpleNamespace())
    (folder / "run").mkdir()
    with closing(Control(folder / "run", operations)) as control:
        control.start()
        told = separation.ask(open_node(folder), train, "hub.example:9443")
        assert told == replace(FIT, gate_reads_data=True, asked="as reported by the running processes")
        ledger = str((folder / "ledger").absolute())
        assert trainer.asked == {"host": "hub.example", "port": 9443, "folder": ledger}
        (train / "train.toml").unlink()  # of another user: the gate is not even told where the data lie
        assert separation.ask(open_node(folder), train, "").gate_reads_data is None
        station.working = True
        with (
            lock.hold(folder / "run" / region_gate.LOCK, what="a gate"),
            pytest.raises(NotReadyError, match="round"),
        ):
            separation.ask(open_node(folder), train, "")


def test_below_a_folder_that_may_not_be_entered_nothing_can_be_read(tmp_path, monkeypatch):
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(diagnosis.os, "stat", denied)
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: False)
    assert not diagnosis.can_read(tmp_path / "data" / "table.parquet")


def test_the_data_are_counted_for_every_open_plan_and_what_is_wrong_comes_before_any_approval(folder):
    asked = []

    def survey(train: Path, some) -> list[dict]:
        asked.append((train, some))
        return [{"said": "", "wrong": ["EU: 0 of 9 training vehicles have a window"]} for _ in some]

    told = doctor.windows(patient(folder, survey=survey))
    assert (told.outcome, "0 of 9" in told.found) == ("fail", True)
    roster = open_node(folder).policy().roster
    ((train, (usual,)),) = asked
    assert (train, usual["roster"], usual["task"]["name"]) == (folder / "train", roster, "forecasting")
    one = plan()
    plans(one)(folder)
    told = doctor.windows(patient(folder, survey=survey))
    assert told.found.startswith(f"plan {one.hash[:8]}: EU: 0 of 9")
    assert asked[1][1] == [{"task": one.task.model_dump(), "pin": None, "roster": one.region("EU").roster}]


def test_data_of_a_task_that_no_plan_has_named_yet_are_not_counted_as_forecastings(folder):
    pin = (
        '[[tasks]]\nname = "lidar"\ndistribution = "x"\nversion = "1"\npackage_sha256 = "' + 64 * "0" + '"\n'
    )
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("tasks = []\n", "") + pin)
    told = doctor.windows(patient(folder, survey=lambda *_: pytest.fail("asked")))
    assert (told.outcome, "lidar" in told.found, "before a plan" in told.found) == ("ok", False, True)


def test_who_may_not_read_the_data_is_told_who_may(folder):
    def survey(*_):
        raise NotReadyError("data", got="no answer from a process that reads them", hint="as root")

    told = doctor.windows(patient(folder, survey=survey))
    assert (told.outcome, told.fix) == ("warn", "as root")


def test_a_process_that_reads_the_data_counts_them_beside_the_roster(tmp_path):
    made = drives({"EU": 6, "CN": 3})
    rows = made.rows.drop_columns(["test"]).append_column("test", [[False] * made.rows.num_rows])
    table.write(replace(made, rows=rows), tmp_path / "drives.parquet")
    train = tmp_path / "train"
    train.mkdir()
    (train / "train.toml").write_text('name = "EU"\ndata_path = "../drives.parquet"\n')
    task = {"name": "forecasting", "options": {}}
    usual, less, same, more = separation.surveys(
        train, [{"task": task, "pin": None, "roster": roster} for roster in (None, 5, 6, 9)]
    )
    assert usual == {"said": "EU: 6 of 6 training vehicles have a window", "wrong": []}
    assert ["1 more than stated" in line for line in less["wrong"]] == [True]
    assert same == {"said": f"{usual['said']}; roster 6", "wrong": []}
    assert more == {"said": f"{usual['said']}; roster 9, 3 more than there are", "wrong": []}


def test_a_task_that_nobody_reviewed_is_not_run_to_count(tmp_path):
    train = tmp_path / "train"
    train.mkdir()
    (train / "train.toml").write_text('name = "EU"\ndata_path = "nowhere"\n')
    (other, broken) = separation.surveys(
        train,
        [
            {"task": {"name": "lidar", "options": {}}, "pin": None, "roster": 5},
            {"task": {"name": "forecasting", "options": {}}, "pin": None, "roster": 5},
        ],
    )
    assert other == {"said": "not counted: the policy does not name the task", "wrong": []}
    assert "no such file" in broken["wrong"][0]
    with pytest.raises(NotReadyError, match="root"):
        separation.surveys(tmp_path / "none", [])


def test_frozen_weights_that_the_policy_names_are_looked_for_by_their_hash(folder, tmp_path):
    content = b"weights of a public trunk"
    sha256 = canonical.sha256(content)
    policy = folder / "policy.toml"
    usual = policy.read_text()
    assert doctor.backbones(patient(folder, survey=lambda *_: pytest.fail("asked"))).outcome == "ok"
    policy.write_text(
        usual.replace("backbones = []\n", f'backbones = [{{ name = "roads", sha256 = "{sha256}" }}]\n')
    )
    train = tmp_path / "train"
    (train / "backbones").mkdir(parents=True)
    (train / "train.toml").write_text('name = "EU"\ndata_path = "nowhere"\n')
    try:
        asked = Patient(open_node(folder), train, TODAY, ask=lambda *_: FIT)
        told = doctor.backbones(asked)
        assert (told.outcome, f"roads ({sha256[:16]})" in told.found) == ("fail", True)
        (train / "backbones" / "any.safetensors").write_bytes(content)
        assert doctor.backbones(asked).outcome == "ok"
    finally:
        policy.write_text(usual)
