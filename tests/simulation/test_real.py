"""The same experiment over real regions: what the coordinator conducts, here over the fake federation."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
from conftest import drives, experiment_of
from federation import Federation
from safetensors.numpy import load_file

import fedfsd
from fedfsd.audit import receipt
from fedfsd.audit.evidence import load as load_evidence
from fedfsd.audit.verify import verify
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.ledger.key import SigningKey
from fedfsd.report import compare
from fedfsd.report.run_folder import Folder, releases
from fedfsd.simulation import real
from fedfsd.simulation.books import Evidence
from fedfsd.simulation.conduct import checks_of, conduct
from fedfsd.simulation.run import node_config

ROSTERS = {"CN": 40, "EU": 30, "US": 20}


@pytest.fixture
def written(drives_path):
    return experiment_of(drives_path, rounds=4, rosters=ROSTERS)


@pytest.fixture
def coordinator(tmp_path):
    """What a run needs of a coordinator's folder."""
    folder = tmp_path / "hub"
    (folder / "receipts").mkdir(parents=True)
    (folder / "heads").mkdir()
    SigningKey.generate("fedfsd/coordinator/roads").write(folder / "coordinator.key")
    return folder


def start(written, path):
    return real.begin(load(Experiment, written), path)


def model_of(path):
    return load_file(path / "model.safetensors")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_rehearsal_gives_the_model_that_a_simulation_gives(tmp_path, written, coordinator):
    simulated = fedfsd.simulate(written, output=tmp_path / "simulated")
    where, plan = start(written, tmp_path / "run")
    assert plan.hash == simulated.metrics["plan"]
    real.serve(Federation(tmp_path / "regions", written), where.path, coordinator)
    for name, array in model_of(simulated.path).items():
        np.testing.assert_allclose(model_of(where.path)[name], array, atol=1e-6)
    mine, theirs = where.read("metrics.json"), simulated.metrics
    assert mine["pooled"] == theirs["pooled"]
    assert mine["regions"]["CN"]["fde_m"] == theirs["regions"]["CN"]["fde_m"]
    assert mine["regions"]["CN"]["roster_counted"] is False
    page = html.unescape((where.path / "report.html").read_text())
    assert "simulat" not in page
    assert "On the coordinator's own table, the model reaches" in page
    assert "what a region measures on its own vehicles stays there" in page
    assert "which nobody trained on" not in page


@pytest.mark.parametrize("path", ["none", "one"])
def test_without_a_public_table_figures_are_null_and_everything_is_written(
    tmp_path, written, coordinator, path
):
    """Of a table with one region, the others have no figures; the report and compare cope."""
    federation = Federation(tmp_path / "regions", written)
    if path == "one":
        path = str(tmp_path / "one.parquet")
        table.write(drives({"CN": 30}), path)
    where, _ = start(written, tmp_path / "run")
    document = where.read("experiment.json")
    document["data"]["path"] = path  # the plan stays: the fake's regions hold the other one
    where.write("experiment.json", document)
    real.serve(federation, where.path, coordinator)
    metrics = where.read("metrics.json")
    assert metrics["regions"]["EU"]["fde_m"] is None
    assert metrics["regions"]["EU"]["test_windows"] == 0
    assert metrics["regions"]["EU"]["rounds_released"] == 4
    assert (metrics["pooled"]["fde_m"] is None) == (path == "none")
    assert (metrics["regions"]["CN"]["fde_m"] is None) == (path == "none")
    page = html.unescape((where.path / "report.html").read_text())
    assert "no test vehicle here" in page
    nothing = path == "none"
    assert ("was not measured here" in page) == nothing
    assert ("How good it is</h2>" in page) != nothing
    assert ("constant velocity" in page) != nothing
    assert compare.compare([where.path], tmp_path / "compared")["settings"][0]["runs"] == 1


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, written, coordinator):
    whole, _ = start(written, tmp_path / "whole")
    real.serve(Federation(tmp_path / "a", written), whole.path, coordinator)
    federation = Federation(tmp_path / "b", written)
    federation["EU"].fail(round=3)
    federation["US"].fail(round=3)
    where, plan = start(written, tmp_path / "cut")
    with pytest.raises(NotReadyError):
        real.serve(federation, where.path, coordinator)
    error = real.stopped(where)
    assert isinstance(error, NotReadyError)
    assert "EU: lost, US: lost" in error.got
    assert real.progress(where).round == 2
    for name in ("EU", "US"):
        federation[name].tampers.clear()
    assert real.again(load(Experiment, written), where.path) == (where, plan)
    assert real.stopped(where) is None
    real.serve(federation, where.path, coordinator)
    assert [line["round"] for line in where.rounds()] == [0, 1, 2, 3, 4]
    assert real.progress(where) is None
    for name, array in model_of(whole.path).items():
        np.testing.assert_array_equal(model_of(where.path)[name], array)


def test_the_run_folder_holds_what_the_gate_countersigned(tmp_path, written, coordinator):
    where, plan = start(written, tmp_path / "run")
    line = {"region": "EU", "plan": plan.hash, "round": 2, "entry": "a" * 64, "sha256": "b" * 64}
    lines = [line | {"bytes": 7, "round": n, "signature": "c" * 128, "cosigned": "x"} for n in (2, 1)]
    book = coordinator / "receipts" / f"{plan.hash}.jsonl"
    book.write_text("".join(json.dumps(one) + "\n" for one in lines))
    (coordinator / "heads" / "EU.note").write_text("a head\n")
    real.serve(Federation(tmp_path / "regions", written), where.path, coordinator)
    found = receipt.read(where.path / "receipts.json")
    assert found.is_signed
    assert [(one.region, one.round) for one in found.receipts] == [("EU", 1), ("EU", 2)]
    assert [path.name for path in (where.path / "checkpoints").iterdir()] == ["EU.note"]
    assert not (where.path / "regions").exists()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda one: one.update(regions={}), "regions"),
        (lambda one: one["regions"]["EU"].pop("roster"), "regions.EU.roster"),
        (lambda one: one["regions"]["US"].pop("identity"), "regions.US.identity"),
        (lambda one: one["data"].update(regions=["CN", "SG"]), "regions.SG.roster"),
        (lambda one: one.update(mode="none"), "mode"),
    ],
)
def test_what_only_the_regions_know_must_be_written(tmp_path, written, change, place):
    change(written)
    with pytest.raises(ConfigError) as refused:
        start(written, tmp_path / "run")
    assert refused.value.place == place
    assert not (tmp_path / "run").exists()


def test_a_run_is_continued_with_its_own_experiment(tmp_path, written):
    where, _ = start(written, tmp_path / "run")
    written["seed"] = 7
    with pytest.raises(NotReadyError, match="another experiment"):
        real.again(load(Experiment, written), where.path)
    with pytest.raises(NotReadyError):
        real.again(load(Experiment, written), tmp_path / "never")


def test_a_table_that_contradicts_a_written_identity_is_refused(tmp_path, written):
    path = str(tmp_path / "recordings.parquet")
    known = drives({"CN": 12})
    table.write(table.Table(known.rows, known.licence, "recording", known.origin), path)
    written["data"]["path"] = path
    written["regions"] = {"CN": {"roster": 40, "identity": "physical"}}
    with pytest.raises(ConfigError, match="identity"):
        fedfsd.simulate(written, output=tmp_path / "run")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_late_updates_have_receipts_that_an_auditor_accepts(tmp_path, written):
    written |= {"mode": "private", "server": {"late_updates": "use", "round_timeout_seconds": 0.5}}
    where = Folder(tmp_path)
    federation = Federation(tmp_path, written)
    federation["EU"].delay(round=2)
    prepared, plan = federation.prepared, federation.plan
    folders = {name: node_config(federation.experiment, tmp_path, name)["folder"] for name in plan.regions}
    keeper = Evidence(prepared, where, {name: tmp_path / folder for name, folder in folders.items()})
    where.write("experiment.json", federation.experiment.model_dump(mode="json"))
    where.write_text("plan.json", plan.document())
    conduct(
        prepared,
        where,
        keeper,
        lambda work: work(federation),
        resume=False,
        checks=checks_of(plan),
        progress=lambda _: None,
    )
    assert ("EU", 2) in [(name, number) for name, number, _ in releases(where.rounds()[3])]
    assert where.read("metrics.json")["regions"]["EU"]["rounds_released"] == 3  # it missed the one after
    assert "came late and counted less" in (tmp_path / "report.html").read_text()
    bundles = sorted((tmp_path / "bundles").glob("*.zip"))
    report = verify(
        load_evidence(bundles, receipts=tmp_path / "receipts.json", trust=tmp_path / "trust.keys")
    )
    assert report.headline == "holds"
    assert "undelivered" not in str(report)
