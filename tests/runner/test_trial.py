"""Canaries: a right mechanism agrees with its plan and its claim, a wrong one does not."""

from __future__ import annotations

import hashlib
import json

import pytest
from plan.sample import REGION, by_round, planned

from experiments.planted.faults import BUGS
from fedfsd.audit import empirical
from fedfsd.cli.main import run
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.mechanism.canary import coins
from fedfsd.plan.plan import Plan
from fedfsd.runner import canary, selftest

PLAN = planned(roster=400, sample_rate=0.5, local_steps=2, num_rounds=8, noise_multiplier=2.0)


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        planned(roster=300, sample_rate=1.0, local_steps=1, num_rounds=6),
        planned(roster=300, sample_rate=0.1, local_steps=3, num_rounds=10, noise_multiplier=1.0),
        by_round((1.0, 2.0, 3.0, 5.0), roster=300),
        PLAN.model_copy(update={"strategy": "moments"}),
    ],
    ids=["sampled", "all of them", "rarely sampled", "by round", "moments"],
)
def test_a_right_mechanism_agrees_with_its_plan(plan):
    found = canary.trial(plan, REGION, seed=bytes(range(32)))
    assert found.faults == ()
    assert found.steps == plan.num_rounds * plan.region(REGION).local_steps
    assert {one.name for one in found.checks} == {
        "sensitivity and sampling",
        "noise on parameters",
        "not finite",
        "independent draws",
    }
    assert 0 <= found.bounds.one_run <= found.bounds.gaussian_pair
    assert found.bounds.one_run_f < plan.region(REGION).epsilon
    assert found.bounds.canaries == plan.region(REGION).roster


@pytest.mark.parametrize(
    "bug",
    ["half noise on the model", "clipping to 2 C", "every window clipped alone", "twice the sample rate"],
)
def test_a_wrong_mechanism_does_not(bug, monkeypatch):
    BUGS[bug](monkeypatch)
    assert canary.trial(PLAN, REGION).faults


def test_coins_are_fair_and_committed_to():
    seed = b"s" * 32
    one, other = (canary.trial(planned(roster=150), REGION, seed=seed) for _ in range(2))
    assert one.commitment == other.commitment
    assert one.commitment == hashlib.sha256(b"fedfsd/canaries/v1\n" + bytes.fromhex(one.seed)).hexdigest()
    inside = coins(seed, 4096)
    assert abs(inside.mean() - 0.5) < 0.05
    digest = hashlib.shake_256(b"fedfsd/coins/v1\n" + seed).digest(512)
    assert [digest[i // 8] >> 7 - i % 8 & 1 == 1 for i in range(4095)] == inside[:-1].tolist()
    assert inside[-1]


def test_few_vehicles_give_no_bound():
    found = canary.trial(planned(roster=30), REGION)
    assert (found.bounds, found.faults) == (None, ())


def test_the_audit_can_fail():
    found = {one.name: one for one in selftest.run()}
    assert [one.as_it_should_be for one in found.values()] == [True, True, True]
    right, half, unclipped = found.values()
    assert (right.replay, right.statistics, right.canaries) == ((), None, ())
    assert right.trial.bounds.one_run_f >= 1.2
    assert half.statistics.startswith("noise-scale: round 1")
    assert half.replay
    assert "a vehicle that moves the sum by more than C" in unclipped.replay
    assert "sensitivity and sampling" in unclipped.canaries
    assert half.trial.bounds.gaussian_pair > selftest.EPSILON


# The commands.


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(PLAN_FOR_CLI.document())
    return path


def _mlp_plan() -> Plan:
    from fedfsd.task.forecasting.model import registry
    from fedfsd.task.forecasting.window import WindowSpec

    model = registry.build("mlp", {}, WindowSpec(), seed=1)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    return planned(shapes | {"noise_witness": (4096,)}, roster=120)


PLAN_FOR_CLI = _mlp_plan()


def told(capsys, *words: object) -> tuple[int, dict]:
    """What a command answers: its exit code and document."""
    with pytest.raises(SystemExit) as ended:
        run([*map(str, words), "--json"])
    found = json.loads(capsys.readouterr().out)
    return ended.value.code, found.get("error", found)


def test_replay_and_canaries_of_a_plan_as_commands(document, tmp_path, capsys, monkeypatch):
    code, found = told(capsys, "audit", "replay", document, "--device", "cpu")
    assert (code, found["outcome"]) == (0, "holds")
    path = tmp_path / "canaries.json"
    code, found = told(capsys, "audit", "canaries", document, "--device", "cpu", "-o", path)
    assert code == 0
    assert json.loads(path.read_text()) == found
    (read,) = empirical.read([path])
    assert read.plan == PLAN_FOR_CLI.hash
    said = list(empirical.sentences([read], REGION, {PLAN_FOR_CLI.hash: None}))
    assert "found no difference but a clipped sum within C" in said[0]
    assert "from 120 canaries epsilon is at least" in said[1]
    assert list(empirical.sentences([read], "EU", {PLAN_FOR_CLI.hash: None})) == []
    assert list(empirical.sentences([read], REGION, {})) == []
    BUGS["no clipping"](monkeypatch)
    code, found = told(capsys, "audit", "replay", document, "--device", "cpu")
    assert (code, found["outcome"]) == (10, "contradicted")
    code, _ = told(capsys, "audit", "canaries", document, "--device", "cpu", "-o", path)
    assert code == 10
    (said,) = empirical.sentences(empirical.read([path]), REGION, {PLAN_FOR_CLI.hash: None})
    assert "is not the plan's: a vehicle that moves the sum by more than C" in said


def test_what_is_no_plan_is_refused_with_a_place(tmp_path, capsys):
    code, error = told(capsys, "audit", "replay", tmp_path / "nowhere")
    assert (code, error["code"]) == (4, "not_ready")
    path = tmp_path / "none.json"
    path.write_text(planned(mode="none", noise_multiplier=0.0, max_grad_norm=None).document())
    code, error = told(capsys, "audit", "canaries", path)
    assert (code, error["code"], error["place"]) == (3, "plan", "mode")
    path.write_text(planned(roster=30).document())
    code, error = told(capsys, "audit", "replay", path, "--region", "EU")
    assert (code, error["place"]) == (3, "regions")


def test_a_file_that_is_no_document_of_canaries_is_refused(tmp_path):
    path = tmp_path / "canaries.json"
    for content in ("", "{}", '{"format": 2}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match="no document of audit canaries"):
            empirical.read([path])
    with pytest.raises(NotReadyError):
        empirical.read([tmp_path / "nowhere"])
