"""What operators stumbled over, typed as in the files that describe it; each ends as its description says.

The descriptions are not part of the project: without them there is nothing to type.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import drives

from fedfsd.drive import table

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


def test_every_case_is_tried_here_or_where_it_belongs():
    elsewhere = {"bf16-model", "mirror-full", "proxy-egress"}
    """Tried in tests/engine, tests/ledger and tests/cli/test_coordinator.py."""
    tried = {"empty-table", "ipv6-listen", "nat-ports", "no-window-region"}
    assert {path.name for path in case("nat-ports").parent.iterdir()} == tried | elsewhere


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


def test_a_coordinator_behind_a_router_that_translates_ports(typed, folder):
    text = (case("nat-ports") / "README.md").read_text(encoding="utf-8")
    command = next(part for part in text.split("`") if part.startswith("fedfsd coordinator init"))
    assert typed(f"{command} --public-port 30302 --public-join-port 30303").code == 0
    assert typed("fedfsd coordinator invite EU -C hub -o eu.json").code == 0
    invited = json.loads(Path("eu.json").read_text(encoding="utf-8"))
    assert (invited["address"], invited["join"]) == ("fed.example:30302", "fed.example:30303")


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
