"""``fedfsd region adapt``: through a process of the runner, past the gate; what it refuses before that."""

from __future__ import annotations

import json
import stat
from contextlib import closing

import operator_kit
import pytest
from conftest import drives
from plan.sample import REGION, planned
from runner.runner_kit import ARRAYS, SHAPES
from safetensors.numpy import save

from fedfsd.drive import table
from fedfsd.gate.resident import CARD, FILE, MARK
from fedfsd.node.node import open_node
from fedfsd.plan.plan import WITNESS

pytest_plugins = ["typing_user"]
HERE = ("--region", "eu", "--set", "max_epochs=2")
WEIGHTS = {name: array for name, array in ARRAYS.items() if name != WITNESS}


@pytest.fixture
def eu(folder):
    """A region with a runner's folder and drives of its own."""
    made = operator_kit.region(folder)
    table.write(drives({"EU": 20}, origin="synthetic"), folder / "drives.parquet")
    (made / "train").mkdir(exist_ok=True)
    (made / "train" / "train.toml").write_text(
        'name = "EU"\ndata_path = "../../drives.parquet"\ndevice = "cpu"\n', encoding="utf-8"
    )
    return made


@pytest.fixture
def run(folder):
    """What the coordinator's people hand over: the files of a run."""
    mine = json.loads(planned(SHAPES).document())["regions"][REGION]
    plan = planned(SHAPES, regions={"EU": mine})
    (folder / "run").mkdir()
    (folder / "run" / "plan.json").write_text(plan.document(), encoding="utf-8")
    (folder / "run" / "model.safetensors").write_bytes(save(WEIGHTS))
    (folder / "run" / "start.safetensors").write_bytes(save({name: -one for name, one in ARRAYS.items()}))
    return plan


def test_the_runner_makes_it_and_the_ledger_says_nothing(fedfsd, eu, run):
    before = {path: path.read_bytes() for path in (eu / "mirror").iterdir()}
    said = fedfsd("region", "adapt", "run", *HERE)
    assert said.code == 0, said
    assert {path: path.read_bytes() for path in (eu / "mirror").iterdir()} == before
    assert stat.S_IMODE((eu / "train" / FILE).stat().st_mode) == 0o600
    card = json.loads((eu / "train" / CARD).read_text())
    assert card["plan"] == run.hash
    assert card["settings"]["max_epochs"] == 2
    for model in ("resident", "shared", "alone", "constant velocity"):
        assert any(line.startswith(model) for line in said.out.splitlines())
    assert "must not leave the jurisdiction" in said.out


def test_what_is_refused_before_anything_is_trained(fedfsd, folder, eu, run):
    def refused(*words, code):
        said = fedfsd("region", "adapt", *words, "--json")
        assert said.code == code
        return said.error

    assert refused("nothing", *HERE, code=4)["got"]
    assert "learning_rate" in refused("run", "--region", "eu", "--set", "learning_rat=1", code=3)["hint"]
    marked = save(WEIGHTS, {MARK: "{}"})
    (folder / "run" / "model.safetensors").write_bytes(marked)
    assert refused("run", *HERE, code=13)["got"] == "a region's own model, trained without noise"
    (folder / "run" / "model.safetensors").unlink()
    assert "model.safetensors" in refused("run", *HERE, code=4)["place"]
    (folder / "run" / "model.safetensors").write_bytes(save(WEIGHTS))
    one = operator_kit.plan()
    operator_kit.send(folder, one)
    assert fedfsd("region", "approve", "plan.json", "--yes", "--region", "eu").code == 0
    assert "--now" in refused("run", *HERE, code=4)["hint"]
    with closing(open_node(eu).open_ledger()) as ledger:
        assert list(ledger.state.runs) == [one.hash]
    assert not (eu / "train" / FILE).exists()
