"""The strategy keeps to the plan whatever the regions do."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import experiment_of
from federation import Federation
from flwr.app import Array, ArrayRecord

from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.federation import checkpoint
from fedfsd.flower import strategy as strategies
from fedfsd.gate.watch import Watcher

STRATEGIES = {
    "FedAvg": {},
    "FedAvgM": {"server_momentum": 0.9},
    "FedAdam": {"eta": 0.01, "beta_1": 0.9, "beta_2": 0.99},
    "FedMedian": {},
    "Krum": {"num_malicious_nodes": 1},
}


@pytest.fixture
def experiment(drives_path):
    return experiment_of(drives_path, rounds=4)


@pytest.fixture
def federation(tmp_path, experiment):
    return Federation(tmp_path, experiment)


def test_fedavg_adds_the_weighted_mean_of_the_updates(federation):
    updates = []
    for name in federation.plan.regions:
        federation[name].update(lambda arrays: updates.append(arrays) or arrays, round=1)
    first = federation.rounds()[0]
    weights = [federation.plan.region(name).weight for name in federation.plan.regions]
    for name, start in federation.prepared.initial.items():
        expected = start + sum(weight * update[name] for weight, update in zip(weights, updates, strict=True))
        np.testing.assert_allclose(first.arrays[name], expected, atol=1e-6)


def each(change):
    """A misbehaviour: every array of the update of round 2 is changed."""
    return lambda region: region.update(
        lambda arrays: {name: change(array) for name, array in arrays.items()}, round=2
    )


@pytest.mark.parametrize(
    ("misbehave", "code"),
    [
        pytest.param(lambda region: region.stall(round=2), "timeout", id="stall"),
        pytest.param(lambda region: region.fail(round=2), "lost", id="crash"),
        pytest.param(each(lambda array: np.full_like(array, np.nan)), "bad_reply", id="nan"),
        pytest.param(each(lambda array: array[..., :1]), "bad_reply", id="shape"),
        pytest.param(each(lambda array: array.astype(np.float64)), "bad_reply", id="dtype"),
        pytest.param(
            lambda region: region.update(lambda a: {f"x{n}": x for n, x in a.items()}, round=2),
            "bad_reply",
            id="names",
        ),
        pytest.param(lambda region: region.claim(round=2, sha256="0" * 64), "bad_reply", id="hash"),
    ],
)
def test_a_bad_region_is_named_and_skipped(federation, misbehave, code):
    misbehave(federation["EU"])
    rounds = federation.rounds()
    assert [done.outcomes["EU"].code for done in rounds] == ["released", code, "released", "released"]
    assert all(done.outcomes[name].code == "released" for done in rounds for name in ("CN", "US"))
    assert all(np.isfinite(array).all() for array in rounds[-1].arrays.values())


@pytest.mark.parametrize(
    ("misbehave", "finding"),
    [
        pytest.param(lambda region: region.skip_noise(round=2), "noise-scale", id="no noise"),
        pytest.param(each(lambda array: array * 100), "update-norm", id="norm"),
        pytest.param(each(lambda array: np.float32(0.9) * array), "noise-grid", id="off the grid"),
    ],
)
def test_an_update_with_unusual_noise_ends_the_regions_part(tmp_path, federation, misbehave, finding):
    misbehave(federation["EU"])
    strategy = federation.strategy(Watcher(tmp_path / "watch"))
    path = tmp_path / "checkpoint.safetensors"
    rounds = federation.rounds(strategy, on_round=lambda done: checkpoint.save(path, strategy, done))
    codes = [(done.outcomes["EU"].code, done.outcomes["EU"].finding) for done in rounds]
    assert codes == [("released", None), *[("unusual_noise", finding)] * 3]
    assert all(done.outcomes[name].code == "released" for done in rounds for name in ("CN", "US"))
    asked = [int(one.config_records["config"]["round"]) for one in federation.received]
    assert [asked.count(round) for round in (1, 2, 3, 4)] == [3, 3, 2, 2]
    resumed = federation.strategy()
    checkpoint.restore(path, resumed)
    assert resumed.ended == {"EU": finding}


def test_two_regions_with_one_noise_are_named(tmp_path, federation):
    """Each update alone is right; the region whose reply is read second is the one that is named."""
    sent = {}

    def remember(arrays):
        sent.update(arrays)
        return arrays

    federation["CN"].update(remember, round=2)
    federation["EU"].update(
        lambda arrays: arrays | {"noise_witness": _at_scale(sent["noise_witness"], arrays)}, round=2
    )
    rounds = federation.rounds(federation.strategy(Watcher(tmp_path / "watch")))
    assert rounds[1].outcomes["CN"].code == "released"
    assert (rounds[1].outcomes["EU"].code, rounds[1].outcomes["EU"].finding) in (
        ("unusual_noise", "noise-overlap"),
        ("unusual_noise", "noise-grid"),  # its scale is another region's, and so its grid may be
    )


def _at_scale(block, arrays):
    return (block * (arrays["noise_witness"].std() / block.std())).astype(np.float32)


def test_a_reported_weight_is_ignored(tmp_path, experiment):
    honest = Federation(tmp_path / "a", experiment).rounds()[-1]
    greedy = Federation(tmp_path / "b", experiment)
    greedy["US"].weigh(1e12, round=1)
    for name, array in greedy.rounds()[-1].arrays.items():
        np.testing.assert_array_equal(array, honest.arrays[name])


def test_below_quorum_the_run_stops_and_says_who(federation):
    federation["EU"].stall(round=2)
    federation["US"].fail(round=2)
    with pytest.raises(NotReadyError, match="1 of 3 regions") as refused:
        federation.rounds()
    assert "EU: timeout" in str(refused.value)
    assert "minister" not in str(refused.value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, experiment, name):
    experiment["server"] = {"strategy": name, "options": STRATEGIES[name]}
    whole = Federation(tmp_path / "a", experiment).rounds()
    broken, path = Federation(tmp_path / "b", experiment), tmp_path / "checkpoint.safetensors"
    strategy = broken.strategy()

    def stop_after_two(done):
        checkpoint.save(path, strategy, done)
        if done.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.rounds(strategy, on_round=stop_after_two)
    again = broken.strategy()
    done, arrays = checkpoint.restore(path, again)
    assert done == 2
    rest = broken.rounds(again, first_round=3, arrays=arrays)
    for key, array in whole[-1].model.items():
        np.testing.assert_array_equal(rest[-1].model[key], array)


def test_a_round_cut_off_before_its_checkpoint_is_sent_again_not_trained_again(federation):
    first = federation.rounds()
    again = federation.rounds(first_round=4, arrays=first[2].arrays)
    assert again[-1].outcomes == first[-1].outcomes


def test_other_arrays_for_a_booked_round_are_refused(federation):
    federation.rounds()
    other = {name: array + 1 for name, array in federation.prepared.initial.items()}
    with pytest.raises(NotReadyError, match="budget"):
        federation.rounds(arrays=other)


def test_every_message_holds_plan_round_and_arrays_only(federation):
    federation.rounds()
    assert len(federation.received) == 12
    for content in federation.received:
        assert set(content) == {"arrays", "config"}
        assert set(content.config_records["config"]) == {"plan", "round"}


def test_the_released_model_is_the_mean_of_the_last_half(federation):
    rounds = federation.rounds()
    for name, array in rounds[-1].model.items():
        mean = (rounds[2].arrays[name].astype(np.float64) + rounds[3].arrays[name]) / 2
        np.testing.assert_allclose(array, mean, atol=1e-7)


def test_strategies_of_other_packages_are_found(tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text(
        "from flwr.serverapp.strategy import FedAvg\nclass Halved(FedAvg):\n    half = True\n"
    )
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fedfsd.strategies]\nHalved = other:Halved\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert strategies.resolve("Halved", {}).half


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("FedAwg", {}, "server.strategy"),
        ("DifferentialPrivacyClientSideFixedClipping", {}, "server.strategy"),
        ("FedAvg", {"momentum": 1}, "server.options.momentum"),
        ("FedAvg", {"fraction_train": 0.5}, "server.options.fraction_train"),
    ],
)
def test_a_wrong_strategy_is_refused_with_the_choices(name, options, place):
    with pytest.raises(ConfigError) as refused:
        strategies.resolve(name, options)
    assert refused.value.place == place
    assert refused.value.expected


def test_a_private_flower_name_that_moves_fails_clearly():
    """Contract with Flower 1.41: what fedfsd.flower.private relies on."""
    from flwr.app import Message, RecordDict

    from fedfsd.flower import private

    private.become(7)
    message = Message(RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2, np.float32))})}), 2, "train")
    number = private.number(message)
    assert message.metadata.message_id == number
    assert (message.metadata.run_id, message.metadata.src_node_id) == (7, private.SERVER_NODE_ID)
    assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == number
