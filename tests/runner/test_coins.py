"""Canaries in a region's own rounds: verdict, incident, opened coins."""

from __future__ import annotations

import json

import numpy as np
import pytest
from books import keep_books, rounds_in
from plan.sample import REGION, planned, with_canaries
from runner.runner_kit import ARRAYS, SHAPES, gate_of, listening, threaded, train_folder

from experiments.planted.faults import BUGS
from fedfsd.audit import coins as opened_coins
from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
from fedfsd.cli.main import run
from fedfsd.errors import ConfigError, NotReadyError, RefusedError, UnusualNoiseError
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import Policy
from fedfsd.mechanism.canary import checks
from fedfsd.plan.plan import CANARIES
from fedfsd.runner import coins
from fedfsd.runner.region import Region, RegionConfig, run_round

PLAN = with_canaries(
    planned(SHAPES, roster=500, sample_rate=1.0, noise_multiplier=1.0, num_rounds=3, target_delta=1e-4), 120
)
ALL = {one.name: ARRAYS.get(one.name, np.zeros(120, np.float32)) for one in PLAN.model.arrays}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A region whose plan is over: its folder, with bundle, released bytes and coins."""
    folder = tmp_path_factory.mktemp("region")
    region = opened(folder)
    (folder / "releases").mkdir()
    for round in (1, 2, 3):
        released = run_round(region, ALL, PLAN, round)
        (folder / "releases" / str(round)).write_bytes(bytes(released.content))
    region.gate.ledger.bundle(folder / "bundle.zip")
    region.gate.ledger.close()
    return folder


def opened(folder) -> Region:
    """A region with the plan approved, and its run key."""
    keep_books(folder, REGION, PLAN)
    policy = Policy(roster=500, identity="physical", max_epsilon=1000.0, max_delta=0.1)
    return Region(RegionConfig(REGION, "embedded", str(folder)), Gate(REGION, policy, folder))


def look(folder, *names, changes=None):
    """What opened coins show, of the released rounds ``names``."""
    (one,) = opened_coins.read([coins.document(folder, PLAN.hash)])
    evidence = load([folder / "bundle.zip"], releases=folder / "releases")
    return opened_coins.opened(one.model_copy(update=changes or {}), evidence)


def test_opened_coins_show_that_the_rounds_were_right(finished):
    found = look(finished)
    assert (found.committed, found.rounds, found.missing, found.canaries) == (True, (1, 2, 3), (), 120)
    assert not any(one.fails for one in found.checks)
    assert found.checks[0].found == pytest.approx(1.0, abs=0.3)
    assert 0 < found.bounds.one_run_f <= found.bounds.gaussian_pair
    assert 1 < found.noticed < 2
    # The runner saw the same, by the mechanism's formula in the place of the auditor's.
    kept = np.load(finished / "canaries" / f"{PLAN.hash}.npz")
    seen, pulls = zip(
        *(coins._in_units(PLAN, REGION, n, kept["blocks"][n - 1]) for n in (1, 2, 3)), strict=True
    )
    inside = coins.coins(
        bytes.fromhex(json.loads(coins.document(finished, PLAN.hash).read_text())["seed"]), 120
    )
    mine = checks(np.array(seen), inside, np.array(pulls), 1.0)
    assert [one.found for one in mine] == pytest.approx([one.found for one in found.checks], rel=1e-9)
    assert not (finished / "keys" / f"{PLAN.hash}.key").exists()


def test_other_coins_are_not_those_that_were_committed_to(finished):
    assert look(finished, changes={"seed": "0" * 64}).committed is False
    assert look(finished, changes={"key": "0" * 64}).committed is False


def test_a_command_opens_them(finished, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(PLAN.document())
    words = ["audit", "canaries", tmp_path / "plan.json", "--coins", coins.document(finished, PLAN.hash)]
    words += ["--bundle", finished / "bundle.zip", "--json"]

    def told(*more):
        with pytest.raises(SystemExit) as ended:
            run([*map(str, (*words, *more))])
        return ended.value.code, json.loads(capsys.readouterr().out)

    code, found = told("--releases", finished / "releases", "-o", tmp_path / "found.json")
    assert code == 0
    mine = found["regions"][REGION]
    assert (mine["of"], mine["committed"], mine["missing"]) == ("rounds", True, [])
    some = tmp_path / "some"
    some.mkdir()
    (some / "2").write_bytes((finished / "releases" / "2").read_bytes())
    code, found = told("--releases", some)
    assert (code, found["regions"][REGION]["missing"]) == (11, [1, 3])
    code, found = told()
    assert (code, found["error"]["code"]) == (4, "not_ready")
    (tmp_path / "plan.json").write_text(planned(SHAPES).document())
    code, found = told("--releases", some)
    assert found["error"]["place"] == "coins"


def test_what_is_no_document_of_coins_is_refused(tmp_path):
    path = tmp_path / "coins.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="no document of coins"):
        opened_coins.read([path])
    with pytest.raises(NotReadyError):
        opened_coins.read([tmp_path / "nowhere"])


def test_a_fault_ends_the_plan_and_contradicts_the_ledger(tmp_path, monkeypatch):
    region = opened(tmp_path)
    monkeypatch.setattr(Region, "replay", lambda *_: None)  # which would have found it before
    BUGS["no clipping"](monkeypatch)
    with pytest.raises(UnusualNoiseError, match="another mechanism"):
        run_round(region, ALL, PLAN, 1)
    found = next(one for one in rounds_in(tmp_path, "incident"))
    assert (found["round"], found["finding"]) == (1, "canary-sensitivity")
    with pytest.raises(RefusedError, match="ended here with an incident in round 1"):
        run_round(region, ALL, PLAN, 1)
    region.gate.ledger.bundle(tmp_path / "bundle.zip")
    assert verify(load([tmp_path / "bundle.zip"])).exit_code == 10


def test_a_round_that_is_trained_again_takes_its_own_place(tmp_path):
    random = np.random.default_rng(1)
    update = {CANARIES: random.standard_normal(120).astype(np.float32) * 1e-4}
    said = [coins.judged(tmp_path, PLAN, REGION, round, update, b"k" * 32) for round in (1, 2, 2, 1)]
    assert said[1] == said[2]
    assert said[0] == said[3]
    path = tmp_path / "canaries" / f"{PLAN.hash}.npz"
    assert np.load(path)["rounds"].tolist() == [1]
    path.write_bytes(b"cut off")
    coins.judged(tmp_path, PLAN, REGION, 3, update, b"k" * 32)
    assert np.load(path)["rounds"].tolist() == [3]
    assert coins.judged(tmp_path, planned(SHAPES), REGION, 1, update, b"k" * 32) == ""


def test_a_gate_wants_a_verdict_where_there_are_canaries(tmp_path):
    region = opened(tmp_path)
    booked = region.gate.reserve(PLAN, 1, ALL)
    with pytest.raises(RefusedError, match="no verdict"):
        region.gate.release(ALL, booked, PLAN)


def test_an_update_that_the_runner_does_not_hand_over_ends_the_plan_too(tmp_path, drives_path, monkeypatch):
    plan = planned(SHAPES)
    gate, train = gate_of(tmp_path / "gate", plan), train_folder(tmp_path, drives_path)
    monkeypatch.setattr(Region, "replay", lambda *_: None)
    BUGS["no noise"](monkeypatch)
    with listening(gate, tmp_path) as runner, threaded(train, drives_path):
        runner.commitment(plan.hash)
        with pytest.raises(UnusualNoiseError) as error:
            runner.round(plan, 1, ARRAYS)
    assert error.value.finding == "noise-scale"
    (found,) = rounds_in(tmp_path / "gate", "incident")
    assert (found["round"], found["finding"]) == (1, "noise-scale")


def test_the_verdict_crosses_the_runners_socket_and_ends_the_plan(tmp_path, drives_path, monkeypatch):
    plan = with_canaries(planned(SHAPES), 7)
    arrays = {one.name: ARRAYS.get(one.name, np.zeros(7, np.float32)) for one in plan.model.arrays}
    gate = gate_of(tmp_path / "gate", plan)
    train = train_folder(tmp_path, drives_path)
    with listening(gate, tmp_path) as runner, threaded(train, drives_path):
        runner.commitment(plan.hash)
        runner.round(plan, 1, arrays)
        assert coins.document(train, plan.hash).exists()
        monkeypatch.setattr("fedfsd.runner.region.coins.judged", lambda *_: ".x..")
        with pytest.raises(RefusedError):
            runner.round(plan, 2, arrays)
        (found,) = rounds_in(tmp_path / "gate", "incident")
        assert (found["round"], found["finding"]) == (2, "canary-noise")
        with pytest.raises(RefusedError, match="ended here"):
            runner.round(plan, 2, arrays)
