"""``coordinator run`` beside an engine that misbehaves: answers, crashes, Ctrl-C, and going on."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

import pytest
from conftest import experiment_of
from federation import Federation

from fedfsd.config.experiment import Experiment, Region
from fedfsd.config.load import load
from fedfsd.coordinator import run as runs
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.errors import ConfigError, NotReadyError, RefusedError, UsageError
from fedfsd.ledger.key import SigningKey
from fedfsd.plan.build import Roster
from fedfsd.service import lock
from fedfsd.simulation import real

pytest_plugins = ["cli.typing_user"]

REGIONS = {"CN": 40, "EU": 30, "US": 20}


class FakeEngine:
    """Runs what it is given in a thread of this process; each attempt may be told to end otherwise."""

    def __init__(self, work=lambda config: None, ends=()) -> None:
        self.work, self.ends = work, list(ends)
        self.configs: list[dict] = []
        self.stopped: list[int] = []
        self.up, self.away = True, 0
        self._states: dict[int, str] = {}
        self._threads: list[threading.Thread] = []

    def ready(self) -> bool:
        return self.up

    def submit(self, app, config):
        assert app == "fedfsd.simulation.apps:server"
        self._demand_up()
        self.configs.append(dict(config))
        number = len(self.configs)
        self._states[number] = "running"
        thread = threading.Thread(target=self._run, args=(number, config))
        self._threads.append(thread)
        thread.start()
        return number

    def state(self, number):
        self._demand_up()
        if number not in self._states:
            raise UsageError("run", got=number)
        return self._states[number]

    def _demand_up(self):
        if self.away:
            self.away -= 1
            raise NotReadyError("SuperLink", got="nothing")

    def stop(self, number):
        self.stopped.append(number)

    def close(self):
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self, number, config):
        end = self.ends.pop(0) if self.ends else "finished:completed"
        try:
            if end == "finished:completed" or end.startswith("after "):
                self.work(config)
        except Exception:
            end = "finished:failed"
        self._states[number] = end.removeprefix("after ")


@pytest.fixture
def hub(tmp_path):
    """A coordinator with three regions that joined, whose gate listens."""
    folder = tmp_path / "hub"
    for inner in ("offers", "receipts", "heads", *(f"regions/{name}" for name in REGIONS)):
        (folder / inner).mkdir(parents=True)
    for name in REGIONS:
        (folder / "regions" / name / "region.crt").touch()
    SigningKey.generate("fedfsd/coordinator/roads").write(folder / "coordinator.key")
    with socket.create_server(("127.0.0.1", 0)) as gate:
        port = gate.getsockname()[1]
        (folder / "coordinator.toml").write_text(f'name = "roads"\nport = {port}\n')
        yield open_coordinator(folder)


@pytest.fixture
def written(drives_path):
    return experiment_of(drives_path, rounds=3, rosters=REGIONS)


@pytest.fixture
def begun(tmp_path, written):
    return real.begin(load(Experiment, written), tmp_path / "run")


def answer(hub, plan, **answers):
    folder = hub.offers / plan.hash
    folder.mkdir(exist_ok=True)
    for name, code in answers.items():
        (folder / f"{name}.json").write_text(json.dumps({"approved": code is None, "code": code}))


def conductor_of(where, watch=lambda: None):
    return runs.Conductor(
        where.path,
        lambda: where.complete,
        lambda: real.stopped(where),
        lambda: len(where.rounds()),
        watch,
        lambda: real.is_conducted(where),
    )


def follow(engine, where, hub, said=None, watch=lambda: None):
    try:
        runs.follow(
            engine,
            conductor_of(where, watch),
            coordinator=hub,
            say=(said if said is not None else []).append,
        )
    finally:
        engine.close()


def test_rosters_are_what_the_regions_declare(hub, written):
    """Nobody types them at the coordinator, and one that differs is refused before a plan is made."""
    bare = load(Experiment, written).model_copy(update={"regions": {}})
    offered = {"CN": Roster(30, "physical", counted=False), "US": Roster(12, "recording", counted=False)}
    found = real.completed(bare, offered)  # of all that joined
    assert real.rosters_of(found) == offered
    assert Experiment.resolved(found.document()).document() == found.document()  # as the run folder keeps it
    named = bare.model_copy(update={"regions": {"CN": Region(local_steps=3), "EU": Region()}})
    found = real.completed(named, offered)
    assert (found.regions["CN"].roster, found.regions["CN"].local_steps) == (30, 3)
    with pytest.raises(ConfigError, match=r"regions\.EU\.roster.*have its gate connect once"):
        real.rosters_of(found)
    for wrong in ({"roster": 31}, {"identity": "recording"}):
        typed = bare.model_copy(update={"regions": {"CN": Region(**wrong)}})
        with pytest.raises(ConfigError, match="as CN declares it; fix: leave it out here"):
            real.completed(typed, offered)
    same = bare.model_copy(update={"regions": {"CN": Region(roster=30, identity="physical")}})
    assert set(real.rosters_of(real.completed(same, offered))) == {"CN"}


def test_the_run_waits_until_all_have_answered_and_says_for_whom(hub, begun):
    _, plan = begun
    said = []
    with runs.offered(hub, plan):
        offer = hub.offers / f"{plan.hash}.json"
        assert offer.read_text() == plan.document()
        answer(hub, plan, CN=None)
        with pytest.raises(NotReadyError, match="no answer from EU, US"):
            runs.await_answers(hub, plan, timeout=0.2, say=said.append)
        later = threading.Timer(0.3, answer, (hub, plan), {"EU": "refused", "US": None})
        later.start()
        runs.await_answers(hub, plan, timeout=20, say=said.append)
        later.join()
    assert said[0].endswith("waiting for the approval of EU, US")
    assert said[-1].endswith("approved, without EU (refused)")
    assert not offer.exists()


def test_too_many_refusals_end_the_run_and_the_next_one_asks_again(hub, begun):
    _, plan = begun
    with runs.offered(hub, plan):
        answer(hub, plan, EU="budget", US="plan")
        with pytest.raises(RefusedError, match="EU: budget, US: plan"):
            runs.await_answers(hub, plan, timeout=20, say=lambda _: None)
        answer(hub, plan, EU="version")
        with pytest.raises(
            RefusedError, match="fix: upgrade fedfsd at EU: their release cannot read this plan"
        ):
            runs.await_answers(hub, plan, timeout=20, say=lambda _: None)
    answer(hub, plan, CN=None)
    with runs.offered(hub, plan):
        assert [path.name for path in (hub.offers / plan.hash).iterdir()] == ["CN.json"]


@pytest.mark.usefixtures("undrawn")
def test_a_server_app_that_is_killed_is_started_again(hub, begun, tmp_path, written):
    where, _ = begun
    federation = Federation(tmp_path / "regions", written)
    engine = FakeEngine(
        lambda config: real.serve(federation, where.path, hub.folder), ["finished:failed", "finished:failed"]
    )
    said = []
    follow(engine, where, hub, said)
    assert where.complete
    assert len(engine.configs) == 3
    assert engine.configs[0] == {"run": str(where.path.resolve()), "coordinator": str(hub.folder.resolve())}
    assert said == ["the run was interrupted after 0 rounds and continues"] * 2


@pytest.mark.usefixtures("undrawn")
def test_a_killed_server_app_is_noticed_before_the_engine_notices(hub, begun, tmp_path, written, monkeypatch):
    monkeypatch.setattr(runs, "_DEAD_SECONDS", 0.2)
    where, _ = begun
    federation = Federation(tmp_path / "regions", written)
    seen, kill, released = threading.Event(), threading.Event(), threading.Event()

    def conduct(config):
        if not seen.is_set():  # conducts, then is gone; the engine goes on believing in it
            with lock.hold(where.path / real.CONDUCTED, what="this one"):
                seen.set()
                kill.wait(30)
            released.wait(30)
        else:
            real.serve(federation, where.path, hub.folder)

    watched = []

    def watch():
        watched.append(1)
        if seen.is_set() and len(watched) > 5:
            kill.set()
        if len(engine.configs) == 2:
            released.set()

    engine = FakeEngine(conduct)
    follow(engine, where, hub, watch=watch)
    assert where.complete
    assert engine.stopped == [1]
    assert len(engine.configs) == 2


@pytest.mark.usefixtures("undrawn")
def test_two_never_conduct_one_run(hub, begun, tmp_path, written, monkeypatch):
    monkeypatch.setattr(real, "_LAST_ONE_SECONDS", 0.1)
    where, _ = begun
    with (
        lock.hold(where.path / real.CONDUCTED, what="another"),
        pytest.raises(NotReadyError, match="conductor"),
    ):
        real.serve(Federation(tmp_path / "regions", written), where.path, hub.folder)
    assert real.stopped(where) is None


@pytest.mark.slow
def test_a_server_app_that_never_gets_anywhere_is_given_up(hub, begun):
    where, _ = begun
    engine = FakeEngine(ends=["finished:failed"] * 9)
    with pytest.raises(NotReadyError, match="--resume"):
        follow(engine, where, hub)
    assert len(engine.configs) == 3


@pytest.mark.usefixtures("undrawn")
def test_what_stopped_the_conductor_is_the_error_of_the_command(hub, begun, tmp_path, written):
    where, _ = begun
    federation = Federation(tmp_path / "regions", written)
    for name in ("CN", "EU"):
        federation[name].fail(round=2)
    engine = FakeEngine(lambda config: real.serve(federation, where.path, hub.folder))
    with pytest.raises(NotReadyError, match="CN: lost, EU: lost"):
        follow(engine, where, hub)
    assert len(engine.configs) == 1


def test_an_engine_that_restarts_meanwhile_is_waited_for(hub, begun):
    where, _ = begun

    def work(config):
        engine.away = 1
        time.sleep(0.1)
        where.write("metrics.json", {})

    engine = FakeEngine(work)
    engine.away = 3
    follow(engine, where, hub)
    assert engine.away == 0


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_stops_the_run_and_it_can_be_continued(hub, begun, tmp_path, written):
    where, _ = begun
    federation = Federation(tmp_path / "regions", written)
    gate = threading.Event()

    def interrupt():
        gate.set()
        raise KeyboardInterrupt

    engine = FakeEngine(lambda config: gate.wait(30), ["after finished:stopped"])
    with pytest.raises(KeyboardInterrupt):
        follow(engine, where, hub, watch=interrupt)
    assert engine.stopped == [1]
    engine.work = lambda config: real.serve(federation, where.path, hub.folder)
    follow(engine, where, hub)
    assert where.complete


def test_a_run_that_the_engine_still_conducts_is_followed_not_started_twice(hub, begun):
    where, _ = begun
    engine = FakeEngine(lambda config: (time.sleep(0.2), where.write("metrics.json", {})))
    number = engine.submit(runs.SERVER_APP, {})
    (where.path / runs.RUN_ID).write_text(json.dumps({"run_id": str(number)}))
    follow(engine, where, hub)
    assert len(engine.configs) == 1


def test_the_command_from_file_to_report(fedfsd, hub, tmp_path, written, monkeypatch):
    import tomli_w

    engine = FakeEngine()
    monkeypatch.setattr("fedfsd.flower.engine.Engine", lambda folder, port: engine)
    (tmp_path / "small.toml").write_text(tomli_w.dumps(written))
    federation = Federation(tmp_path / "regions", written)
    answer(hub, federation.plan, CN=None, EU=None, US=None)

    def conduct(config):
        real.serve(federation, tmp_path / "made", hub.folder)

    engine.work = conduct
    words = ("coordinator", "run", "small.toml", "-C", hub.folder, "-o", "made", "--json")
    engine.up = False
    said = fedfsd(*words)
    assert said.code == 4
    assert "coordinator up" in said.error["hint"]
    engine.up = True
    said = fedfsd(*words)
    engine.close()
    assert said.code == 0, said.err
    assert said.document["plan"] == federation.plan.hash
    assert "round 3/3" in said.err or "approved" in said.err
    assert (tmp_path / "made" / "report.html").exists()
    (hub.folder / "regions" / "EU" / "region.crt").unlink()
    said = fedfsd("coordinator", "run", "small.toml", "-C", hub.folder, "--json")
    assert said.error["hint"] == "fedfsd coordinator invite EU"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_withdraws_the_offer(fedfsd, hub, tmp_path, written, monkeypatch, request, number):
    import tomli_w

    (tmp_path / "small.toml").write_text(tomli_w.dumps(written))
    monkeypatch.setattr("fedfsd.flower.engine.Engine", lambda folder, port: FakeEngine())
    before, offers = signal.SIG_DFL, []
    usual = signal.signal(number, before)  # under nohup SIGHUP is ignored, and stays so
    request.addfinalizer(lambda: signal.signal(number, usual))

    def told(*_, **__):
        offers.extend(hub.offers.glob("*.json"))
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(runs, "await_answers", told)
    said = fedfsd("coordinator", "run", "small.toml", "-C", hub.folder, "-o", "made", "--json")
    assert (said.code, said.document["error"]["code"]) == (130, "interrupted")
    assert len(offers) == 1
    assert not list(hub.offers.glob("*.json"))
    assert signal.getsignal(number) == before
