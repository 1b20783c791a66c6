"""Before a plan is approved: what waits, what it would mean, and a question that a person answers."""

from __future__ import annotations

import datetime
import os
import pty
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from operator_kit import HUB, plan, run_rounds, send
from operator_kit import region as ready

from fedfsd.ledger.key import SigningKey
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.node import approve, explain, offer
from fedfsd.node.node import open_node
from fedfsd.plan.plan import Plan

pytest_plugins = ["typing_user"]
HERE = ["--region", "eu"]


@pytest.fixture
def eu(folder) -> Path:
    """A region with a grant of epsilon 10, its folder named eu."""
    SigningKey.generate("fedfsd/EU/officer").write(folder / "officer.key")
    return ready(folder)


def offered(eu: Path, one=None) -> str:
    """A plan as the gate keeps it while it waits; its hash."""
    one = one or plan()
    (eu / "plans").mkdir(exist_ok=True)
    (eu / "plans" / f"{one.hash}.json").write_text(one.document(), encoding="utf-8")
    return one.hash


def booked(eu: Path) -> list[str]:
    with closing(open_node(eu).open_ledger()) as ledger:
        return list(ledger.state.runs)


def test_what_waits_is_listed_and_no_longer_when_it_is_approved(fedfsd, folder, eu):
    assert fedfsd("region", "plans", *HERE).out == "no plan waits for approval\n"
    first, second = offered(eu), offered(eu, plan(seed=2))
    (eu / "plans" / f"{'0' * 64}.json").write_text("no plan")
    offered(eu, plan(region="US"))  # not for this region
    found = fedfsd("region", "plans", *HERE, "--json").document["plans"]
    assert {one["plan"]: one["name"] for one in found} == {first: "motion-1", second: "motion-2"}
    assert fedfsd("region", "status", *HERE, "--json").document["waiting"] == found
    said = fedfsd("region", "status", *HERE).out
    assert first[:12] in said
    assert fedfsd("region", "approve", first, "--yes", *HERE).code == 0
    assert [one["plan"] for one in fedfsd("region", "plans", *HERE, "--json").document["plans"]] == [second]


def test_what_is_shown_is_what_is_booked(fedfsd, folder, eu):
    one, name = plan(), offered(eu)
    before = {path: path.read_bytes() for path in (eu / "mirror").iterdir()}
    shown = fedfsd("region", "plan", name[:6], *HERE, "--json").document
    dry = fedfsd("region", "approve", name[:6], "--dry-run", *HERE, "--json").document
    assert dry == shown
    assert {path: path.read_bytes() for path in (eu / "mirror").iterdir()} == before
    assert not booked(eu)
    assert shown["standing"] == "waits for approval"
    assert shown["epsilon"] == pytest.approx(epsilon_pld([Event(0.1, 2.0, 12)], 1e-4), abs=1e-9)
    assert (shown["recipient"], shown["roster"], shown["rounds"]) == (HUB, 1000, 3)
    assert shown["release_bytes"] == sum(4 * array.size for array in one.model.arrays)
    made = fedfsd("region", "approve", name, "--yes", *HERE, "--json").document
    budget = shown["budget"]
    assert budget["before"] == 0
    assert budget["after"] == made["epsilon_lifetime"]  # the first plan of this grant
    assert budget["more_such_plans"] == made["more_such_plans"]
    assert budget["share_left"] == pytest.approx(made["rho_left"] / (made["rho_left"] + made["rho"]))
    again = fedfsd("region", "plan", name[:4], *HERE, "--json").document
    assert (again["approved"], again["budget"]["after"]) == (True, budget["after"])


def test_a_plan_that_cannot_be_approved_says_why(fedfsd, folder, eu):
    strange = fedfsd("region", "plan", offered(eu, plan(roster=999)), *HERE)
    assert "roster 999 is not the declared one" in strange.out
    assert "refused by the policy" in strange.out
    dear = fedfsd("region", "plan", offered(eu, plan(rounds=400, noise=1.0)), *HERE, "--json").document
    assert dear["standing"] in {"beyond the budget", "refused by the policy"}
    text = (eu / "policy.toml").read_text().replace("max_epsilon = 10.0", "max_epsilon = 1000.0")
    (eu / "policy.toml").write_text(text)
    dear = fedfsd("region", "plan", dear["plan"], *HERE, "--json").document
    assert dear["standing"] == "beyond the budget"
    assert "a plan that costs" in dear["budget"]["objection"]
    assert not booked(eu)


def test_a_beginning_that_two_plans_share_names_neither(fedfsd, folder, eu, monkeypatch):
    name = offered(eu)
    twin = name[:10] + ("0" if name[10] != "0" else "1") + name[11:]
    (eu / "plans" / f"{twin}.json").write_text("{}")
    said = fedfsd("region", "plan", name[:10], *HERE)
    assert said.code == 4
    assert "several matching plans" in said.err
    assert fedfsd("region", "plan", name[:11], *HERE).code == 0


def test_nobody_approves_unseen_what_a_few_digits_name(fedfsd, folder, eu):
    name = offered(eu)
    said = fedfsd("region", "approve", name[:15], "--yes", *HERE)
    assert (said.code, "16 or more" in said.err) == (2, True)
    said = fedfsd("region", "approve", name[:15], *HERE)  # and nobody is there to be asked
    assert (said.code, "--dry-run" in said.err) == (2, True)
    assert not booked(eu)


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 13), ("\n", 13)])
def test_a_person_sees_the_plan_and_is_asked(folder, eu, typed, code):
    name = offered(eu)
    here, there = pty.openpty()
    words = [
        sys.executable,
        "-c",
        "from fedfsd.cli.main import run; run()",
        "region",
        "approve",
        name[:8],
        *HERE,
    ]
    process = subprocess.Popen(words, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(here, typed.encode())
    out, err = process.communicate(timeout=200)
    os.close(here)
    os.close(there)
    assert process.returncode == code, err
    assert "epsilon" in err.partition("approve this plan?")[0]
    assert booked(eu) == ([name] if code == 0 else [])
    assert ("approved as entry" in out) == (code == 0)


def test_until_when_the_grant_lasts_at_the_pace_so_far(eu):
    node, today = open_node(eu), datetime.datetime.now(datetime.UTC).date()
    first, later = plan(), plan(seed=2)
    approve.approve(node, first, data_set=None, officer=None, today=today.isoformat())
    assert offer.describe(node, later, data_set=None, today=today)["budget"]["lasts_until"] is None
    run_rounds(eu, first, 1, 2, 3)
    with closing(node.open_ledger()) as ledger:
        (account,) = ledger.state.accounts.values()
    in_ten_days = today + datetime.timedelta(days=10)
    found = offer.describe(node, later, data_set=None, today=in_ten_days)["budget"]
    left = account.grant.rho_max - 2 * account.spent  # the later plan costs as much as the first did
    days = (datetime.date.fromisoformat(found["lasts_until"]) - in_ten_days).days
    assert days == left * 10 // account.spent
    both = epsilon_lifetime(2 * account.spent, alpha=account.grant.alpha, delta=account.grant.delta)
    assert found["after"] == pytest.approx(both)


def test_a_plan_above_a_cap_needs_the_officer(fedfsd, folder):
    ready(folder, plan_cap=3.7)
    shown = fedfsd("region", "plan", send(folder, plan()), *HERE, "--json").document
    assert shown["standing"] == "waits for approval"
    assert shown["budget"]["officer_signs"]
    assert "has to sign" in fedfsd("region", "plan", "plan.json", *HERE).out


def test_what_is_frozen_is_shown_with_its_file_and_refused_where_the_policy_does_not_name_it(
    fedfsd, folder, eu
):
    usual, sha256 = plan(), "5" * 64
    frozen = {"sha256": sha256, "size": 58_000, "source": "file"}
    part = type(usual.model).model_validate(usual.model.model_dump() | {"backbone": frozen})
    fields = {name: getattr(usual, name) for name in Plan.model_fields if name != "format"}
    name = offered(eu, Plan(**fields | {"model": part}))
    said = fedfsd("region", "plan", name, *HERE)
    assert f"58,000 further parameters, the weights file with SHA-256 {sha256}" in " ".join(said.out.split())
    shown = fedfsd("region", "plan", name, *HERE, "--json").document
    assert shown["objections"] == [f"its backbone {sha256[:16]} is not listed under backbones in the policy"]
    assert fedfsd("region", "approve", name, "--yes", *HERE).code == 13
    policy = eu / "policy.toml"
    text = policy.read_text(encoding="utf-8")
    policy.write_text(
        text.replace("backbones = []", f'backbones = [{{ name = "roads", sha256 = "{sha256}" }}]'),
        encoding="utf-8",
    )
    assert fedfsd("region", "approve", name, "--yes", *HERE).code == 0
    (entry,) = [one.entry for one in runs_of(eu)]
    assert explain.facts(entry)["of it"] == (
        f"0 weights; 58,000 stay as they are, of the file {sha256}"  # this plan's one array is the witness
    )


def runs_of(eu: Path):
    with closing(open_node(eu).open_ledger()) as ledger:
        return list(ledger.state.runs.values())
