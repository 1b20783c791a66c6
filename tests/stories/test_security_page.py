"""SECURITY.md does what it says: every command of its runbook is typed, after the loss that it is for."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from operator_kit import GRANT, fill_in, plan, run_rounds, send

from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.service.owner import private

pytest_plugins = ["cli.typing_user"]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"^fedfsd .*$", block, re.M)
    for title, block in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S)
}
PLAN = plan(rounds=3)


def _restored() -> None:
    shutil.rmtree("eu/ledger")
    shutil.copytree("yesterday/ledger", "eu/ledger")


def _machine() -> None:
    shutil.rmtree("eu")


def _mirror() -> None:
    shutil.rmtree("second")
    Path("second").mkdir()


def _both() -> None:
    shutil.rmtree("eu/ledger")
    shutil.copytree("yesterday/ledger", "eu/ledger")
    shutil.copytree("yesterday-second", "second", dirs_exist_ok=True)


def _node_key() -> None:
    Path("eu/ledger/node.key").unlink()


def _nothing() -> None:
    pass


LOSSES: dict[str, Callable[[], None]] = {
    "The ledger was lost or restored from yesterday; the mirror is there": _restored,
    "The region's machine is lost; the mirror is there": _machine,
    "The mirror is lost; the ledger was never restored from a backup": _mirror,
    "Ledger and mirror are lost; a backup is there": _both,
    "The node's key was lost or copied": _node_key,
    "The officer's key is to be replaced": _nothing,
    "The region's TLS key was lost or copied": _nothing,
    "A run key was copied": _nothing,
}


@pytest.fixture
def typed(fedfsd):
    """Type a line that must end well; what came out."""

    def call(line: str) -> str:
        said = fedfsd(*shlex.split(line)[1:])
        assert said.code == 0, f"{line}: {said.err or said.out}"
        return said.out

    return call


@pytest.fixture
def eu(typed, folder) -> None:
    """A region with a grant and an open plan whose first round is done, a copy of it, and then the second."""
    Path("second").mkdir()
    typed("fedfsd keys new fedfsd/EU/officer -o officer.key")
    typed("fedfsd region init EU -o eu --mirror second --officer-key officer.key")
    fill_in(folder / "eu")
    typed("fedfsd region grant --region eu --officer-key officer.key " + " ".join(map(str, GRANT)))
    typed(f"fedfsd region approve --yes {send(folder, PLAN)} --region eu")
    run_rounds(folder / "eu", PLAN, 1)
    shutil.copytree("eu", "yesterday")
    shutil.copytree("second", "yesterday-second")
    run_rounds(folder / "eu", PLAN, 2)


def test_every_section_with_commands_is_tried():
    assert {title for title, commands in SECTIONS.items() if commands} == set(LOSSES)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert sum(map(len, SECTIONS.values())) == len(lines)  # nothing else is in them


@pytest.mark.slow
@pytest.mark.parametrize("title", LOSSES)
def test_after_each_loss_the_region_is_whole_again(typed, eu, title):
    (mirror,) = Path("second").iterdir()
    server = None
    if "TLS" in title:
        typed("fedfsd coordinator init roads -o hub --port 1 --join-port 1")
        server, port = serve_enrolment(open_coordinator(Path("hub"), overrides=["join_port=0"]))
        path = Path("hub/coordinator.toml")
        path.write_text(path.read_text().replace("join_port = 1 ", f"join_port = {port} "))
        typed("fedfsd coordinator invite EU -C hub -o old.json")
    LOSSES[title]()
    said = ""
    try:
        with private():
            for line in SECTIONS[title]:
                line = line.replace("EU-1a2b3c4d.jsonl", mirror.name).replace("3f2a91c0", PLAN.hash[:8])
                found = re.findall(r"^fingerprint +(\S+)", said, re.M)
                said = typed(line.replace("FINGERPRINT", found[0]) if found else line)
    finally:
        if server is not None:
            server.stop(0).wait()
    assert "EU" in typed("fedfsd region status --region eu")
    typed("fedfsd region bundle --region eu -o eu.zip")
    typed("fedfsd audit verify eu.zip --trust officer.vkey")


def test_the_citation_is_of_this_release():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
