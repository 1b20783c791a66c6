"""``fedfsd region coins``: once a plan is settled, as its entry committed, by a process of the runner."""

from __future__ import annotations

import json

import numpy as np
import operator_kit
import pytest
from plan.sample import with_canaries

from fedfsd.audit import coins as opened_coins
from fedfsd.engine import randomness
from fedfsd.plan.plan import CANARIES
from fedfsd.runner import coins

pytest_plugins = ["typing_user"]
COUNT = 9
PLAN = with_canaries(operator_kit.plan(rounds=1), COUNT)
HERE = ("--region", "eu", "-o", "coins.json")


@pytest.fixture
def eu(fedfsd, folder):
    """A region with a runner's folder that has approved the plan."""
    made = operator_kit.region(folder)
    (made / "train").mkdir(exist_ok=True)
    (made / "train" / "train.toml").write_text(
        'name = "EU"\ndata_path = "embedded"\ndevice = "cpu"\n', encoding="utf-8"
    )
    operator_kit.send(folder, PLAN)
    assert fedfsd("region", "approve", "plan.json", "--yes", "--region", "eu").code == 0
    return made


def test_open_after_the_plan_and_not_before(fedfsd, folder, eu):
    def refused(code, *words):
        said = fedfsd("region", "coins", *(words or (PLAN.hash[:8],)), *HERE, "--json")
        assert (said.code, (folder / "coins.json").exists()) == (code, False)
        return said.error

    key = randomness.run_key(eu / "train" / "keys", PLAN.hash, create=False)
    coins.judged(eu / "train", PLAN, "EU", 1, {CANARIES: np.zeros(COUNT, np.float32)}, key)
    assert "region settle" in refused(4)["hint"]
    assert refused(12, "12345678")["got"] == "no such plan in this ledger"
    assert fedfsd("region", "settle", PLAN.hash[:8], "--region", "eu").code == 0
    kept = coins.document(eu / "train", PLAN.hash)
    written = kept.read_text()
    kept.write_text(written.replace(json.loads(written)["seed"], 64 * "0"))
    assert refused(13)["expected"] == "those that the plan's entry commits to"
    for damaged in ("[]", "{}", "not JSON"):
        kept.write_text(damaged)
        assert refused(4)["code"] == "not_ready"
    kept.unlink()
    assert "a plan that was trained here" in refused(4)["got"]
    kept.write_text(written)
    said = fedfsd("region", "coins", PLAN.hash[:8], *HERE)
    assert said.code == 0, said
    (found,) = opened_coins.read([folder / "coins.json"])
    assert (found.plan, found.region) == (PLAN.hash, "EU")
    assert found.seed == json.loads(written)["seed"]


def test_a_plan_without_canaries_has_none_to_open(fedfsd, folder, eu):
    operator_kit.send(folder, operator_kit.plan(rounds=1, seed=2), "other.json")
    assert fedfsd("region", "approve", "other.json", "--yes", "--region", "eu").code == 0
    said = fedfsd("region", "coins", "other.json", *HERE, "--json")
    assert (said.code, said.error["got"]) == (3, "a plan without canaries")
