"""What earlier releases wrote is read for ever: each folder ``release_*`` here, by the code of today.

Every test works on a copy, from inside the copied folder: the files name each other by relative paths.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from evolution.write import NOISE_KEY, ONE_ROUND
from google.protobuf import message_factory
from google.protobuf.message import Message
from safetensors.numpy import load_file
from stage_kit import typed

import fedfsd

# Everything that is taken from inside the package; the rest goes through commands and ``fedfsd``.
from fedfsd.border import border_pb2, wire
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.gate.gate import Gate
from fedfsd.node.node import open_node
from fedfsd.plan import plan as plans
from fedfsd.report.page import write_report
from fedfsd.runner.process import Settings as TrainSettings
from fedfsd.runner.region import Region, RegionConfig, run_round

RELEASES = sorted(path.name for path in Path(__file__).parent.glob("release_*"))
HOLDS, CANNOT_DECIDE, BUDGET = 0, 11, 12
REHEARSAL = ("--set", "mode=rehearsal", "--set", f"privacy.noise_key={NOISE_KEY}")


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    output: str
    error: str

    @property
    def document(self) -> Any:
        """Of ``--json``."""
        return json.loads(self.output)


@pytest.fixture(params=RELEASES)
def golden(request, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of what one release wrote, with the rights that its files had, as the working directory."""
    folder = tmp_path / "golden"
    shutil.copytree(Path(__file__).parent / request.param, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.chdir(folder)
    return folder


def run(*words: object, code: int = 0) -> Outcome:
    """One command in this process, which ends with ``code``."""
    found = attempt(*words)
    assert found.code == code, found.error or found.output
    return found


def attempt(*words: object) -> Outcome:
    """One command in this process, however it ends; on one thread: several make other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ended, out, err = typed(*words)
    finally:
        torch.set_num_threads(threads)
    return Outcome(int(ended or 0), out, err)


def evidence(folder: str) -> list[object]:
    """The words that name bundles, checkpoints, receipts and keys of a run."""
    run, keys = Path(folder), Path(folder) / "trust.keys"
    bundles = sorted((run / "bundles").glob("*.zip"))
    if not bundles:  # over the border every region shows its own
        bundles, keys = sorted(run.parent.glob("*.zip")), run.parent / "trust.keys"
    notes = sorted((run / "checkpoints").glob("*.note"))
    assert len(bundles) == len(notes) == 2
    return [*bundles, *notes, "--receipts", run / "receipts.json", "--trust", keys]


def entries(mirror: Path, kind: str) -> list[dict[str, Any]]:
    """The entries of one kind in a ledger's mirror."""
    return [one for one in map(json.loads, mirror.read_text().splitlines()) if one["type"] == kind]


# Files that people write.


def test_experiments_and_policies_load(golden):
    for path in (Path("experiment.toml"), *Path("federation").glob("*.toml")):
        written = tomllib.loads(path.read_text())
        assert contains(run("config", "check", path, "--json").document, written)
    for path in (Path("policy.toml"), *Path("federation").glob("*/gate/policy.toml")):
        written = tomllib.loads(path.read_text())
        assert contains(run("config", "check", path, "--kind", "policy", "--json").document, written)


def test_an_experiment_in_a_run_folder_is_the_one_of_its_file(golden):
    assert run("config", "check", "experiment.toml").code == HOLDS
    written = json.loads(Path("simulation/finished/experiment.json").read_text())
    assert contains(load(Experiment, "experiment.toml").document(), written)
    assert Experiment.resolved(written).document() == load(Experiment, "experiment.toml").document()


def test_settings_of_both_sides_load(golden):
    for folder in sorted(Path("federation").glob("*/gate")):
        written = tomllib.loads((folder / "region.toml").read_text())
        found = run("region", "status", "--region", folder, "--json").document
        assert found["region"] == written["name"]
        runner = load(TrainSettings, folder.parent / "train" / "train.toml")
        assert runner.name == written["name"]
        assert Path(runner.data(folder.parent / "train")).exists()
    written = tomllib.loads(Path("federation/coordinator/coordinator.toml").read_text())
    found = run("coordinator", "status", "-C", "federation/coordinator", "--json").document
    assert found["federation"] == written["name"]


def test_tables_load_as_they_were(golden):
    (drives,), (imported,) = table.read("drives.parquet"), table.read("imported.parquet")
    assert (drives.regions, drives.identity, drives.origin) == (("CN", "EU"), "physical", "synthetic")
    assert (imported.regions, imported.identity, imported.origin) == (("EU",), "recording", "published")
    assert imported.licence == "CC0-1.0"
    assert drives.rows.num_rows == pq.read_metadata("drives.parquet").num_rows
    run("data", "check", "drives.parquet")


# Plans and evidence.


@pytest.mark.parametrize("folder", ["simulation/finished", "simulation/rehearsal", "federation/finished"])
def test_a_plan_has_the_hash_of_its_text_in_every_ledger(golden, folder):
    text = (golden / folder / "plan.json").read_text()
    plan = plans.read(text)
    assert plan.hash == hashlib.sha256(text.encode()).hexdigest()
    assert plan.document() == text
    mirrors = [
        *Path(folder).glob("regions/*/mirror.jsonl"),
        *Path(folder).parent.glob("*/gate/mirror/*.jsonl"),
    ]
    assert len(mirrors) == 2
    for mirror in mirrors:
        assert plan.hash in [one["plan"] for one in entries(mirror, "plan")]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["simulation/finished", "federation/finished"])
def test_the_evidence_of_a_private_run_holds(golden, folder):
    assert "holds" in run("audit", "verify", *evidence(folder), code=HOLDS).output
    bundles_receipts_and_keys = [word for word in evidence(folder) if not str(word).endswith(".note")]
    run("audit", "report", *bundles_receipts_and_keys, "-o", "audit.html", code=HOLDS)
    assert "<html" in Path("audit.html").read_text()


def test_the_evidence_of_a_rehearsal_still_cannot_be_decided(golden):
    run("audit", "verify", *evidence("simulation/rehearsal"), code=CANNOT_DECIDE)


@pytest.mark.slow
def test_kept_ledgers_still_know_that_their_grants_are_spent(golden):
    words = ("simulate", "experiment.toml", "--ledgers", "kept/ledgers", "-o", "again")
    assert run(*words, code=BUDGET).error.splitlines()[-1].startswith("budget: ")
    assert not Path("again").exists()


# Run folders.


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["simulation/finished", "simulation/rehearsal", "federation/finished", "federation/stopped"]
)
def test_the_page_of_a_run_is_written_again(golden, folder):
    page = Path(folder) / "report.html"
    page.unlink(missing_ok=True)
    assert write_report(folder).samefile(page)
    text = page.read_text()
    run = json.loads((golden / folder / "plan.json").read_text())
    assert all(name in text for name in (run["name"], *run["regions"]))


@pytest.mark.slow
def test_runs_are_compared_as_they_were(golden):
    found = run("compare", "simulation/finished", "simulation/rehearsal", "--json").document
    before = json.loads(Path("simulation/comparison/compare.json").read_text())
    assert len(found["runs"]) == len(before["runs"]) == 2
    for name, cost in before["cost"]["regions"].items():
        assert found["cost"]["regions"][name]["epsilon_search"] == pytest.approx(cost["epsilon_search"])
    run("compare", "simulation/finished", "federation/finished", "-o", "both")


@pytest.mark.parametrize("folder", ["simulation/finished", "simulation/rehearsal", "federation/finished"])
def test_a_model_forecasts_what_it_did(golden, folder):
    finished = fedfsd.Run(golden / folder)
    assert finished.metrics["complete"]
    model, examples = finished.model(), np.load(golden / folder / "examples.npz")
    for region in finished.metrics["regions"]:
        with torch.no_grad():
            paths, scores = model(torch.from_numpy(examples[f"{region}_history"]))
        np.testing.assert_allclose(paths.numpy(), examples[f"{region}_paths"], atol=1e-4)
        assert scores.shape == paths.shape[:2]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_or_names_the_release_that_can_finish_it(golden):
    before = contents(golden / "simulation/interrupted")
    found = attempt("simulate", "experiment.toml", "--resume", "-o", "simulation/interrupted")
    if found.code:
        refusal = found.error.splitlines()[-1]
        assert re.search(rf"\b{re.escape(release(golden))}\b", refusal), found.error
        assert "Traceback" not in found.error
        assert contents(golden / "simulation/interrupted") == before
        return
    rounds = [
        json.loads(line) for line in Path("simulation/interrupted/rounds.jsonl").read_text().splitlines()
    ]
    assert [one["round"] for one in rounds] == list(range(7))
    assert rounds[:4] == [json.loads(line) for line in before["rounds.jsonl"].splitlines()]
    assert fedfsd.Run(golden / "simulation/interrupted").metrics["complete"]
    run("audit", "verify", *evidence("simulation/interrupted"), code=HOLDS)


@pytest.mark.slow
def test_a_rehearsed_round_gives_the_same_model(golden):
    """Later rounds cannot be compared: the key of their noise depends on the bits of the first."""
    found = attempt("simulate", "experiment.toml", *REHEARSAL, *ONE_ROUND, "-o", "again")
    assert found.code == 0, found.error
    assert_close(Path("again"), Path("simulation/one_round"))


# A real region.


@pytest.mark.parametrize("name", ["CN", "EU"])
def test_a_region_goes_on_with_the_plan_it_approved(golden, name):
    """Its gate and its runner in one process: the next round is booked, trained, released, and verifies."""
    home, stopped = golden / "federation" / name.lower(), golden / "federation" / "stopped"
    plan = plans.read((stopped / "plan.json").read_text())
    arrays = load_file(stopped / "checkpoint.safetensors")
    arrays = {one.name: arrays[f"arrays/{one.name}"] for one in plan.model.arrays}
    train = load(TrainSettings, home / "train" / "train.toml")
    with closing(open_node(home / "gate").open_ledger()) as ledger:
        gate = Gate(name, open_node(home / "gate").declared_policy(), home / "gate")
        gate.ledger = ledger
        config = RegionConfig(name, train.data(home / "train"), str(home / "train"), "cpu")
        done = len(entries(mirror(home), "release"))
        released = run_round(Region(config, gate), arrays, plan, 4)
        again = run_round(Region(config, gate), arrays, plan, 4)
    assert released == again
    assert len(entries(mirror(home), "release")) == done + 1
    run("region", "bundle", "--region", home / "gate", "-o", home / "bundle.zip")
    run("audit", "verify", home / "bundle.zip", "--trust", "federation/trust.keys", code=HOLDS)


def test_a_region_settles_the_plan_it_approved(golden):
    """Nothing of a stopped run is lost: what it did not use is free for the next plan."""
    plan = plans.read(Path("federation/stopped/plan.json").read_text())
    run("region", "settle", plan.hash[:16], "--region", "federation/eu/gate")
    run("region", "bundle", "--region", "federation/eu/gate", "-o", "eu.zip")
    run("audit", "verify", "eu.zip", "--trust", "federation/trust.keys", code=HOLDS)


# The border.


def test_what_crossed_is_taken_by_the_wire_of_today(golden):
    methods = set()
    for method, _, message, content in crossed():
        methods.add(method)
        wire.strict(message)
        assert message.SerializeToString() == content
    assert methods >= {"Hello", "Beat", "Next", "Document", "Answer", "Fetch", "Offer", "Send", "Join"}


def test_what_crossed_is_what_policy_and_ledgers_know(golden):
    """Plans are within the policy still; the entries that were offered are those of the ledgers."""
    policies = {
        region: open_node(golden / "federation" / region.lower() / "gate").declared_policy()
        for region in ("CN", "EU")
    }
    released = {
        (one["plan"], one["round"], one["sha256"])
        for region in policies
        for one in entries(mirror(golden / "federation" / region.lower()), "release")
    }
    documents, offers = 0, 0
    for method, kind, message, _ in crossed():
        if (method, kind) == ("Document", "reply"):
            plan = plans.read(message.document.decode())
            documents += 1
            for region, policy in policies.items():
                policy.demand(plan, region)
        if (method, kind) == ("Offer", "request"):
            offers += 1
            assert (message.plan.hex(), message.round, message.sha256.hex()) in released
    assert documents >= 2
    assert offers >= 4


# Help.


def crossed() -> Iterator[tuple[str, str, Message, bytes]]:
    """(method, kind, message, its bytes) of everything in the recording."""
    methods = {
        method.name: method
        for service in border_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    for line in Path("federation/border.jsonl").read_text().splitlines():
        one = json.loads(line)
        name, content = one["method"].rpartition("/")[2], base64.b64decode(one["content"])
        kind = methods[name].input_type if one["kind"] == "request" else methods[name].output_type
        yield name, one["kind"], message_factory.GetMessageClass(kind).FromString(content), content


def mirror(home: Path) -> Path:
    """The mirror of a real region."""
    (found,) = (home / "gate" / "mirror").glob("*.jsonl")
    return found


def contains(found: Any, written: Any) -> bool:
    """Whether everything written down is found; what is found may have more keys."""
    if isinstance(written, dict) and isinstance(found, dict):
        return all(key in found and contains(found[key], value) for key, value in written.items())
    return bool(found == written)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def release(golden: Path) -> str:
    """The version that wrote the folder."""
    return str(json.loads((golden / "written.json").read_text())["versions"]["fedfsd"])


def assert_close(found: Path, before: Path) -> None:
    """Two runs' models are equal but for rounding, that of sums to a grid (not in 0.1.0) among it."""
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (found, before))
    assert mine.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_allclose(mine[name], array, atol=1e-5, err_msg=name)
