"""A region's own model: made by its runner, kept by its runner, refused wherever it could get out."""

from __future__ import annotations

import dataclasses
import io
import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drives
from plan.sample import REGION, planned
from runner.runner_kit import ARRAYS, SHAPES, faking, gate_of, listening, rehearsal, threaded, train_folder
from safetensors.numpy import load, load_file, save

from fedfsd import canonical
from fedfsd.config.experiment import Experiment, Resident
from fedfsd.config.load import load as loaded
from fedfsd.drive import table
from fedfsd.engine import backbone, resident
from fedfsd.errors import ConfigError, FedfsdError, NotReadyError, RefusedError
from fedfsd.federation import checkpoint
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import message
from fedfsd.gate.resident import CARD, FILE, demand_shareable, is_marked
from fedfsd.plan.plan import WITNESS
from fedfsd.runner import adapt
from fedfsd.runner.region import RegionConfig, open_region, run_round
from fedfsd.simulation.prepare import prepare
from fedfsd.task import registry
from fedfsd.task.gather import gather, tables_of

QUICK = {"max_epochs": 3, "learning_rate": 0.03}
BEGUN = {"initial_sha256": gate_arrays.sha256(ARRAYS, rehearsal().model.arrays)}
PLAN = rehearsal(model=rehearsal().model.model_dump(mode="json", exclude_none=True) | BEGUN)
WEIGHTS = {name: array for name, array in ARRAYS.items() if name != WITNESS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tables") / "synthetic.parquet"
    table.write(drives({REGION: 40, "EU": 5}, origin="synthetic"), path)
    return str(path)


def made(folder: Path, data: str, **files: bytes) -> dict:
    """What ``python -m fedfsd.runner --adapt`` does."""
    asked = {
        "plan": PLAN.document(),
        "settings": QUICK,
        "pins": {"model": None, "task": None},
        "sizes": {name: len(content) for name, content in files.items()},
    }
    given = io.BytesIO(json.dumps(asked).encode() + b"\n" + b"".join(files.values()))
    return adapt.adapt(folder, RegionConfig(REGION, data, str(folder), "cpu"), given)


@pytest.fixture(scope="module")
def own(tmp_path_factory, data) -> Path:
    """A runner's folder in which a model was made."""
    folder = tmp_path_factory.mktemp("own") / "train"
    folder.mkdir()
    made(folder, data, shared=save(WEIGHTS))
    return folder


def values(own: Path) -> dict[str, np.ndarray]:
    """Those of the region's own model as a plan's arrays, without a mark."""
    found = load_file(own / FILE) | {WITNESS: ARRAYS[WITNESS]}
    return {name: found[name] for name in ARRAYS}


def contents(folder: Path) -> dict[Path, bytes]:
    """Of every file below a gate's folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is made.


def test_it_is_made_of_what_the_last_round_sent_and_nobody_is_told(tmp_path, data):
    gate, train = gate_of(tmp_path / "gate", PLAN), train_folder(tmp_path, data)
    with listening(gate, tmp_path) as runner, threaded(train, data):
        runner.round(PLAN, 1, ARRAYS)
        other = {name: array + np.float32(0.125) for name, array in ARRAYS.items()}
        runner.round(PLAN, 2, other)
        runner.facts()  # the runner has done what it does after a round
        before = contents(tmp_path / "gate")
        card = made(train, data)
        assert contents(tmp_path / "gate") == before
    np.testing.assert_array_equal(load_file(train / adapt.SHARED)["head.bias"], other["head.bias"])
    np.testing.assert_array_equal(load_file(train / adapt.START)["head.bias"], ARRAYS["head.bias"])
    figures = card["figures"]
    assert set(figures) == {"resident", "shared", "alone", "constant velocity"}
    assert figures["shared"]["fde_m"] != figures["alone"]["fde_m"]
    assert figures["resident"]["test_windows"] > 0


def test_file_and_card_are_for_the_runners_user_and_say_what_it_is(own):
    card = json.loads((own / CARD).read_text())
    assert {stat.S_IMODE((own / name).stat().st_mode) for name in (FILE, CARD)} == {0o600}
    assert sorted(path.name for path in own.iterdir()) == [CARD, FILE]  # nothing half-written
    assert card["plan"] == PLAN.hash
    assert "private towards nobody" in card["not_private"]
    assert "must not leave the jurisdiction" in card["must_not_leave"]
    assert is_marked(own / FILE)
    assert card["weights_sha256"] == canonical.sha256(
        gate_arrays.to_bytes(values(own), PLAN.model.arrays[:-1])
    )
    assert "alone" not in card["figures"]  # the start of that plan is not here


def test_vehicles_are_on_one_side_and_the_end_is_the_best_epoch(data):
    """The training against a slow one of its own: no better epoch was passed over, no test vehicle read."""
    task = registry.of("forecasting", {})
    examples, _ = gather(task, tables_of(task, data, REGION), REGION)
    assert not set(examples.vehicles) & set(task.examples(task.tables(data), test=True).vehicles)
    kept, held = resident._parted(examples, 0.2)
    assert not set(examples.owner[kept]) & set(examples.owner[held])
    assert len(kept) + len(held) == len(examples)
    start = task.model("mlp", {}, seed=1)
    chosen = Resident(max_epochs=6, patience=6, learning_rate=0.03)
    losses = []
    for epochs in range(7):
        brief = chosen.model_copy(update={"max_epochs": epochs or 1})
        model = start if not epochs else resident.train(start, task, examples, brief, seed=3).model
        with torch.inference_mode():
            part = {name: torch.from_numpy(one[held]) for name, one in examples.targets.items()}
            losses.append(
                float(task.loss(model(torch.from_numpy(examples.inputs["history"][held])), part).mean())
            )
    found = resident.train(start, task, examples, chosen, seed=3)
    assert losses == pytest.approx(np.minimum.accumulate(losses))  # the best so far, never the last
    assert found.epochs == int(np.argmin(losses)) > 0
    assert {name: one.shape for name, one in start.named_parameters()} == {n: SHAPES[n] for n in WEIGHTS}
    assert all(torch.equal(one, other) for one, other in zip(
        start.parameters(), task.model("mlp", {}, seed=1).parameters(), strict=True))  # fmt: skip


def test_one_vehicle_is_too_few_and_a_run_says_so_before_it_begins(tmp_path, data):
    task = registry.of("forecasting", {})
    examples, _ = gather(task, tables_of(task, data, REGION), REGION)
    alone = dataclasses.replace(examples, owner=np.full_like(examples.owner, 3))
    with pytest.raises(NotReadyError, match="two or more"):
        resident.train(task.model("mlp", {}, seed=1), task, alone, Resident(), seed=1)
    few = tmp_path / "few.parquet"
    table.write(drives({REGION: 1}, origin="synthetic"), few)
    wanted = {"name": "x", "data": {"path": str(few)}, "pretraining": {"path": "none"}, "resident": {}}
    with pytest.raises(FedfsdError, match="two or more"):
        prepare(loaded(Experiment, wanted))


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"no weights", ConfigError, "no file of this plan's weights"),
        (save({"other": np.zeros(3, np.float32)}), ConfigError, "no file of this plan's weights"),
        (save(WEIGHTS | {"head.bias": np.zeros(3, np.float32)}), RefusedError, "head.bias"),
        (b"", NotReadyError, "no model of it in the runner's folder"),
    ],
)
def test_another_model_is_refused_and_nothing_is_left(tmp_path, data, content, error, said):
    with pytest.raises(error, match=said):
        made(tmp_path, data, shared=content)
    assert not list(tmp_path.iterdir())


# Where it could get out.


def test_it_is_no_start_of_a_plan_no_backbone_no_checkpoint_and_no_shared_model(tmp_path, own, data):
    content = (own / FILE).read_bytes()
    wanted = {
        "name": "x",
        "data": {"path": data},
        "model": {"trainable": "head", "backbone": str(own / FILE)},
        "pretraining": {"path": "none"},
    }
    for way in (
        lambda: prepare(loaded(Experiment, wanted)),
        lambda: backbone.found(own, canonical.sha256(content)),
        lambda: backbone.restore(
            registry.of("forecasting", {}).model("mlp", {}, seed=1), [], content, place="x"
        ),
        lambda: checkpoint.restore(own / FILE, strategy=None),
        lambda: made(tmp_path, data, shared=content),
    ):
        with pytest.raises(RefusedError, match="a region's own model"):
            way()


def test_as_the_bytes_of_an_update_it_is_refused_whatever_it_is_filled_up_to(tmp_path, own):
    gate = gate_of(tmp_path, PLAN)
    booked = gate.reserve(PLAN, 1, ARRAYS)
    content = (own / FILE).read_bytes()
    size = 4 * PLAN.model.size
    for sent in (content, content.ljust(size, b"\0"), content[:size]):
        with pytest.raises(RefusedError, match="a region's own model"):
            gate.release_bytes(sent, booked, PLAN)
    assert gate.ledger.state.runs[PLAN.hash].bookings[1].release is None
    gate.ledger.close()


@pytest.mark.parametrize("minus", [0.0, 1.0])
def test_as_arrays_or_as_a_step_from_the_shared_model_it_lacks_the_noise(tmp_path, own, minus):
    gate = gate_of(tmp_path, PLAN)
    booked = gate.reserve(PLAN, 1, ARRAYS)
    update = {name: array - np.float32(minus) * ARRAYS[name] for name, array in values(own).items()}
    with pytest.raises(RefusedError, match="noise"):
        gate.release(update, booked, PLAN)
    assert gate.ledger.state.runs[PLAN.hash].bookings[1].release is None
    gate.ledger.close()


@pytest.mark.parametrize("padded", [False, True])
def test_no_message_of_the_runners_socket_takes_it(tmp_path, own, padded):
    content = (own / FILE).read_bytes()
    content = content.ljust(4 * PLAN.model.size, b"\0") if padded else content

    def act(frames, _):
        task, body = message.receive(
            frames, message.RoundTask, seconds=5, max_body=2**24, body_of=message.RoundTask
        )
        arrays = gate_arrays.view(memoryview(body)[task.document :], PLAN.model.arrays)
        program = gate.ledger.state and runner.program.hash
        sha256 = gate_arrays.sha256(arrays, PLAN.model.arrays)
        asked = message.ReserveCall(plan=PLAN.hash, round=1, arrays=sha256, program=program)
        message.send(frames, asked)
        message.receive(frames, message.Reserved, seconds=5)
        message.send(frames, message.ReleaseCall(plan=PLAN.hash, round=1), content)
        message.receive(frames, message.NotAllowed, seconds=5)
        message.send(frames, message.Failed(plan=PLAN.hash, code="refused"))

    gate = gate_of(tmp_path / "gate", PLAN)
    with listening(gate, tmp_path, task_seconds=5) as runner, faking(tmp_path, act):
        with pytest.raises(RefusedError, match="a region's own model"):
            runner.round(PLAN, 1, ARRAYS)
        assert gate.ledger.state.runs[PLAN.hash].bookings[1].release is None


def test_a_copy_without_its_mark_is_no_start_where_it_was_made_and_a_changed_one_is_not_noticed(
    tmp_path, own, data
):
    """The limit of what can be noticed: other values are other weights."""
    gate_of(own, PLAN).ledger.close()
    region = open_region(RegionConfig(REGION, data, str(own), "cpu", simulated=True))
    stripped = values(own)
    demand_shareable(save(load((own / FILE).read_bytes())), place="a copy")
    with pytest.raises(RefusedError, match="the values of this region's own model"):
        run_round(region, stripped, PLAN, 1)
    assert not region.gate.ledger.state.runs[PLAN.hash].bookings
    stripped["head.bias"] = np.nextafter(stripped["head.bias"], np.float32(1))
    assert run_round(region, stripped, PLAN, 1).content
    region.gate.ledger.close()


def test_private_plans_are_refused_it_alike(tmp_path, own):
    plan = planned(SHAPES)
    gate = gate_of(tmp_path, plan)
    booked = gate.reserve(plan, 1, ARRAYS)
    with pytest.raises(RefusedError):
        gate.release(values(own), booked, plan)
    gate.ledger.close()
