"""Unequal regions: a round has a deadline, a late update is spent, and the plan says whether it counts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import experiment_of
from federation import Federation

from fedfsd.federation.exchange import Post, Roll
from fedfsd.federation.strategy import Task
from fedfsd.report.run_folder import Folder, releases

STEPS = {"CN": 6, "EU": 1, "US": 3}


@pytest.fixture
def experiment(drives_path):
    return experiment_of(drives_path, rounds=4) | {"server": {"late_updates": "use"}}


@pytest.fixture
def updates():
    return {}


def remember(federation, updates, *names):
    """Keep what each region sends, by region and round; under use of the real update."""
    for name in names:
        for number in range(1, federation.plan.num_rounds + 1):

            def keep(arrays, name=name, number=number):
                updates[name, number] = arrays
                return arrays

            federation[name].update(keep, round=number)


def expected_mean(start, parts):
    """The slow reference: each part is (weight, scale, update); float64, one array at a time."""
    total = sum(weight for weight, _, _ in parts)
    return {
        name: array.astype(np.float64)
        + sum(weight * scale * update[name].astype(np.float64) for weight, scale, update in parts) / total
        for name, array in start.items()
    }


def assert_close(arrays, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, atol=2e-6)


def test_a_late_update_counts_less_in_the_round_in_which_it_comes(tmp_path, experiment, updates):
    federation = Federation(tmp_path, experiment)
    remember(federation, updates, "CN", "EU", "US")
    federation["EU"].delay(round=1, by=2)
    rounds = federation.rounds()
    assert [done.outcomes["EU"].code for done in rounds] == ["timeout", "busy", "busy", "released"]
    assert [list(done.late) for done in rounds] == [[], [], [Task("EU", 1)], []]
    late = rounds[2].late[Task("EU", 1)]
    assert (late.code, len(late.sha256), len(late.entry)) == ("late_used", 64, 64)
    weight = {name: federation.plan.region(name).weight for name in federation.plan.regions}
    expected = expected_mean(
        rounds[1].arrays,
        [
            (weight["CN"], 1, updates["CN", 3]),
            (weight["EU"] / 3, 1, updates["EU", 1]),
            (weight["US"], 1, updates["US", 3]),
        ],
    )
    assert_close(rounds[2].arrays, expected)


def test_a_late_update_is_dropped_where_the_plan_says_so(tmp_path, experiment, updates):
    experiment["server"] = {"late_updates": "drop"}
    federation = Federation(tmp_path, experiment)
    remember(federation, updates, "CN", "EU", "US")
    federation["EU"].delay(round=2)
    rounds = federation.rounds()
    # The region goes on with the next round; what it spent on the late one is on record.
    assert [done.outcomes["EU"].code for done in rounds] == ["released", "timeout", "released", "released"]
    assert [outcome.code for outcome in rounds[2].late.values()] == ["late_dropped"]
    assert rounds[2].late[Task("EU", 2)].entry != rounds[2].outcomes["EU"].entry
    weight = {name: federation.plan.region(name).weight for name in federation.plan.regions}
    parts = [(weight[name], 1, updates[name, 3]) for name in sorted(weight)]
    assert_close(rounds[2].arrays, expected_mean(rounds[1].arrays, parts))


@pytest.mark.parametrize(
    ("scale", "code", "then"),
    [(100.0, "unusual_noise", "unusual_noise"), (float("nan"), "bad_reply", "released")],
)
def test_a_late_update_is_judged_like_any_other(tmp_path, experiment, scale, code, then):
    federation = Federation(tmp_path, experiment)
    federation["EU"].update(lambda arrays: {name: scale * one for name, one in arrays.items()}, round=1)
    federation["EU"].delay(round=1)
    rounds = federation.rounds()
    assert [outcome.code for outcome in rounds[1].late.values()] == [code]
    assert rounds[2].outcomes["EU"].code == then


def test_late_updates_make_no_quorum(tmp_path, experiment):
    experiment["server"]["quorum"] = 1.0
    federation = Federation(tmp_path, experiment)
    federation["EU"].delay(round=1)
    with pytest.raises(Exception, match="2 of 3 regions"):
        federation.rounds()


def test_each_region_makes_its_own_steps_and_none_weighs_more_for_them(tmp_path, experiment, updates):
    experiment["training"]["momentum"] = 0.5
    experiment["regions"] = {name: {"local_steps": steps} for name, steps in STEPS.items()}
    federation = Federation(tmp_path, experiment)
    remember(federation, updates, *STEPS)
    first = federation.rounds()[0]
    # How far a constant gradient of 1 goes in n steps of momentum 0.5, by walking it.
    reach = {}
    for name, steps in STEPS.items():
        velocity = reach[name] = 0.0
        for _ in range(steps):
            velocity = 0.5 * velocity + 1
            reach[name] += velocity
    weight = {name: federation.plan.region(name).weight for name in STEPS}
    mean = sum(weight[name] * reach[name] for name in STEPS)
    parts = [(weight[name], mean / reach[name], updates[name, 1]) for name in STEPS]
    assert_close(first.arrays, expected_mean(federation.prepared.initial, parts))
    witness = [updates[name, 1]["noise_witness"].std() / reach[name] for name in STEPS]
    assert max(witness) / min(witness) < 6  # the rosters differ; the judge accepted each at its own steps


def test_receipts_hold_what_came_late(tmp_path, experiment):
    folder = Folder(tmp_path)
    line = {
        "round": 3,
        "regions": {"CN": {"outcome": "released", "sha256": "a"}, "EU": {"outcome": "busy"}},
        "late": [
            {"region": "EU", "round": 1, "outcome": "late_used", "sha256": "b"},
            {"region": "US", "round": 2, "outcome": "budget", "sha256": None},
        ],
    }
    folder.append_round(json.loads(json.dumps(line)))
    (read,) = folder.rounds()
    assert [(name, number) for name, number, _ in releases(read)] == [("CN", 3), ("EU", 1)]


class Nodes:
    """A grid whose nodes come and go and answer who they are, or nothing."""

    def __init__(self, **names: str | None) -> None:
        self.names = {int(key[1:]): name for key, name in names.items()}
        self.sent: list[int] = []

    def get_node_ids(self):
        return list(self.names)

    def push_messages(self, messages):
        nodes = [message.metadata.dst_node_id for message in messages]
        self.sent += nodes
        return [str(node) for node in nodes]

    def pull_messages(self, ids):
        return [self._answer(int(one)) for one in ids if self.names.get(int(one))]

    def _answer(self, node):
        found = SimpleNamespace(config_records={"region": {"name": self.names[node]}})
        return SimpleNamespace(
            content=found, has_content=lambda: True, metadata=SimpleNamespace(reply_to_message_id=str(node))
        )


@pytest.fixture(autouse=True)
def no_flower_identity():
    from fedfsd.flower import private

    private.become(1)


def test_the_roll_is_called_again_and_only_new_nodes_are_asked():
    grid = Nodes(n2="CN", n3="EU", n9="elsewhere")
    roll = Roll(grid, ["CN", "EU"])
    assert roll.call(quorum=1, timeout=5, patience=5) == {"CN": 2, "EU": 3}
    del grid.names[3]
    assert roll.call(quorum=1, timeout=5) == {"CN": 2}
    grid.names[4] = "EU"
    assert roll.call(quorum=1, timeout=5) == {"CN": 2, "EU": 4}
    assert grid.sent == [2, 3, 9, 4]


def test_a_region_that_is_away_is_not_waited_for_longer_than_patience():
    grid = Nodes(n2="CN")
    assert Roll(grid, ["CN", "EU"]).call(quorum=1, timeout=60, patience=0.1) == {"CN": 2}
    # One that is there and silent may be starting: it has until the timeout.
    grid.names[3] = None
    assert Roll(grid, ["CN", "EU"]).call(quorum=1, timeout=0.3, patience=0.1) == {"CN": 2}


def test_a_message_that_the_grid_does_not_take_is_not_waited_for():
    grid = SimpleNamespace(push_messages=lambda messages: ["7", None], pull_messages=lambda ids: [])
    post = Post(grid)
    post.send({"a": object(), "b": object()})
    assert post.expected == ["a"]
    assert post.collect(0.05) == {}
