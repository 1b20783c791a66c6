"""What operators stumbled over, typed as in the files that describe it; each ends as its description says.

The descriptions are not part of the project: without them there is nothing to type.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import operator_kit
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import drives

from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.drive import table
from fedfsd.errors import NotReadyError
from fedfsd.ledger.key import SigningKey

pytest_plugins = ["cli.typing_user"]
CASES = Path(os.environ.get("FEDFSD_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "operator"


def case(name: str) -> Path:
    found = CASES / name
    if not found.is_dir():
        pytest.skip(f"no description of {name} here")
    return found


@pytest.fixture
def typed(fedfsd):
    """Type a line."""
    return lambda line: fedfsd(*shlex.split(line)[1:])


TRIED = {
    "bf16-model",
    "empty-table",
    "ipv6-listen",
    "mirror-full",
    "nat-ports",
    "no-window-region",
    "proxy-egress",
}


def test_every_case_is_tried():
    assert {path.name for path in case("nat-ports").parent.iterdir()} == TRIED


def test_a_coordinator_whose_machine_has_ipv6_only(typed, folder):
    text = (case("ipv6-listen") / "run.sh").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("for hl in")]
    for number, pair in enumerate(shlex.split(line.removeprefix("for hl in").partition(";")[0])):
        host, listen = pair.split()
        hub = f"hub{number}"
        said = typed(
            f"fedfsd coordinator init roads -o {hub} --host '{host}' --listen '{listen}'"
            " --port 20001 --join-port 20002 --flower-port 20100"
        )
        assert said.code == 0, said.err
        assert typed(f"fedfsd coordinator invite EU -C {hub} -o {hub}.json").code == 0
        with suppress(NotReadyError):  # a machine without IPv6; what cannot be used is refused by init
            server, _ = serve_enrolment(open_coordinator(Path(hub), overrides=["join_port=0"]))
            server.stop(0).wait()


def test_a_coordinator_behind_a_router_that_translates_ports(typed, folder):
    text = (case("nat-ports") / "README.md").read_text(encoding="utf-8")
    command = next(part for part in text.split("`") if part.startswith("fedfsd coordinator init"))
    assert typed(f"{command} --public-port 30302 --public-join-port 30303").code == 0
    assert typed("fedfsd coordinator invite EU -C hub -o eu.json").code == 0
    invited = json.loads(Path("eu.json").read_text(encoding="utf-8"))
    assert (invited["address"], invited["join"]) == ("fed.example:30302", "fed.example:30303")
    Path("eu.json").write_text(json.dumps(invited | {"join": "fed.example:1"}), encoding="utf-8")
    SigningKey.generate("fedfsd/EU/officer").write(folder / "officer.key")
    said = typed("fedfsd region init EU -o eu --join eu.json --officer-vkey officer.vkey")
    assert said.code == 13
    assert "modified invitation" in said.err


def test_a_region_whose_only_way_out_is_a_proxy(typed, folder):
    """The way itself is tried in tests/cli/test_coordinator.py; here, that it can be found and is told."""
    case("proxy-egress")
    assert "--proxy" in typed("fedfsd region init --help").out
    page = (Path(__file__).parents[2] / "clients" / "README.md").read_text(encoding="utf-8")
    assert "--proxy" in page
    assert "region.toml` under `[border]" in page


@pytest.fixture
def small_disk(folder):
    """A region whose mirror lies on a disk of 32 kB."""
    node = operator_kit.region(folder)
    mirror, kept = node / "mirror", folder / "kept"
    shutil.copytree(mirror, kept)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", mirror], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        shutil.copytree(kept, mirror, dirs_exist_ok=True)
        yield mirror
    finally:
        subprocess.run(["umount", mirror], check=True)


def test_a_full_mirror_is_named_and_nothing_is_written_twice(typed, folder, small_disk):
    script = (case("mirror-full") / "run.sh").read_text(encoding="utf-8")
    assert "region incident other" in script
    fill = small_disk / "fill"
    with suppress(OSError), fill.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    for number in range(4):  # the last page of the mirror's file may have room still
        before = typed("fedfsd region status --region eu --json").document["entries"]
        note = f"a long note {number} " * 130
        if typed(f"fedfsd region incident other '{note}' --region eu").code:
            break
    said = typed(f"fedfsd region incident other '{note}' --region eu")
    assert said.code == 4
    assert str(small_disk.relative_to(folder)) in said.err
    assert "in the ledger and not yet here" in said.err
    found = typed("fedfsd region status --region eu --json").document
    assert (found["entries"], found["mirror_behind"]) == (before + 1, 1)
    assert "no room for the newest entries (1)" in typed("fedfsd region status --region eu").out
    assert "mirror" in typed("fedfsd region doctor --region eu").out
    fill.unlink()
    assert typed(f"fedfsd region incident other '{note}' --region eu").code == 0
    assert typed("fedfsd region incident other 'short note' --region eu").code == 0
    found = typed("fedfsd region status --region eu --json").document
    assert (found["entries"], found["mirror_behind"]) == (before + 2, 0)
    assert [one["text"] for one in found["incidents"]][-2:] == [note, "short note"]


MODELS = """

class Typo(Base):
    def forward(self, history):
        return self.boddy(history)


class Unmade(Base):
    def __init__(self, options, spec):
        raise KeyError("width")


typo, unmade = entry(Typo), entry(Unmade)
"""
NAMES = ("half", "double", "typo", "unmade")


@pytest.fixture
def fltest(tmp_path, monkeypatch) -> Path:
    """The package of models that the description asks for, with two that are broken."""
    given, site = case("bf16-model"), tmp_path / "site"
    (site / "fltest").mkdir(parents=True)
    text = (given / "models.py").read_text(encoding="utf-8")
    (site / "fltest" / "models.py").write_text(text + MODELS, encoding="utf-8")
    (site / "fltest-1.dist-info").mkdir()
    names = "".join(f"{name} = fltest.models:{name}\n" for name in NAMES)
    (site / "fltest-1.dist-info" / "METADATA").write_text("Name: fltest\nVersion: 1\n")
    (site / "fltest-1.dist-info" / "entry_points.txt").write_text(f"[fedfsd.models]\n{names}")
    monkeypatch.syspath_prepend(str(site))
    yield given / "tiny.toml"
    for name in ("fltest", "fltest.models"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("half", "parameters are bfloat16, expected float32"),
        ("double", "parameters are float64, expected float32"),
        ("typo", "AttributeError: 'Typo' object has no attribute 'boddy' (models.py, line {typo})"),
        ("unmade", "KeyError: 'width' (models.py, line {unmade})"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(typed, fltest, tmp_path, name, told):
    lines = (tmp_path / "site" / "fltest" / "models.py").read_text(encoding="utf-8").splitlines()
    at = {
        one: next(number for number, line in enumerate(lines, 1) if text in line)
        for one, text in (("typo", "self.boddy"), ("unmade", 'raise KeyError("width")'))
    }
    said = typed(f"fedfsd plan {fltest} --set model.name={name}")
    assert said.code == 3
    assert told.format(**at) in said.err


def tables(folder: Path, keep) -> Path:
    """CN whole, and of US what ``keep`` leaves; and an experiment on both."""
    (folder / "tables").mkdir()
    for name in ("CN", "US"):
        path = folder / "tables" / f"{name}.parquet"
        table.write(drives({name: 9}), path)
        if name == "US":
            rows = pq.read_table(path)
            pq.write_table(keep(rows), path)
    text = f'name = "trial"\n[data]\npath = "{folder}/tables"\n[pretraining]\npath = "none"\n'
    (folder / "trial.toml").write_text(text, encoding="utf-8")
    return folder / "tables"


def test_a_table_without_a_row_is_named(typed, folder):
    case("empty-table")
    tables(folder, lambda rows: rows.slice(0, 0))
    checked = typed("fedfsd data check tables")
    assert "US" in checked.out + checked.err
    said = typed("fedfsd plan trial.toml")
    assert "US" in said.out + said.err


def test_a_region_without_a_window_is_named(typed, folder):
    case("no-window-region")
    tables(folder, lambda rows: rows.filter(pc.less(rows["t"], 0.5)))
    checked = typed("fedfsd data check tables")
    assert "US" in checked.out + checked.err
    said = typed("fedfsd plan trial.toml")
    assert "US" in said.err
    assert "window" in said.err
