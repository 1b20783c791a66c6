"""``fedfsd audit verify`` as an auditor types it, in the light install, in every format."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from forge import Forge, check, plan_of, receipts, trust

from fedfsd.audit.document import document, sarif
from fedfsd.audit.finding import Kind
from fedfsd.audit.text import text
from fedfsd.audit.verdict import Report
from fedfsd.cli.main import run

LIGHT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "flwr", "opacus", "pyarrow", "matplotlib", "ray"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from fedfsd.cli.main import run
run(sys.argv[1:])
"""
LABEL = "<script>alert(1)</script> | **x** [y](http://z) `code` www.z.example @all"
NAME = "=1+1 \x1b[2J\u202e.note"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An honest region and one that overspent, with receipts and keys of both."""
    made = tmp_path_factory.mktemp("evidence")
    honest, spender = Forge(), Forge("US")
    for one in (honest, spender):
        one.story()
    spender.edit(1, rho_max=1)
    for one in (honest, spender):
        one.bundle(made)
    receipts(made, honest).rename(made / "receipts-EU.json")
    receipts(made, honest, spender)
    trust(made, honest, spender)
    return made


def light(folder, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process that cannot import what trains."""
    command = [sys.executable, "-c", LIGHT, "audit", "verify", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def fedfsd(folder, capfd, monkeypatch):
    """In this process, among the evidence."""
    monkeypatch.chdir(folder)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as end:
            run(["audit", "verify", *words])
        return subprocess.CompletedProcess(words, end.value.code, *capfd.readouterr())

    return call


def test_it_holds_in_the_light_install(folder):
    said = light(folder, "EU.zip", "--receipts", "receipts-EU.json", "--trust", "trust.keys")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.endswith(
        "verdict: holds; the code on record was not compared with reviewed code (--code)\n"
    )
    for name in ("signatures", "filter", "epsilon", "not checked:", "not proved by any of this:"):
        assert name in said.stdout


def test_one_document_of_all_regions(folder):
    said = light(folder, "EU.zip", "US.zip", "--trust", "trust.keys", "--json")
    found = json.loads(said.stdout)
    assert said.returncode == found["exit_code"] == 10
    assert found["headline"] == "contradicted: filter, rules"
    assert [one["region"] for one in found["parts"]] == ["EU", "US", None]
    outcomes = {one["name"]: one["outcome"] for one in found["parts"][1]["checks"]}
    assert outcomes["filter"] == "contradicted"
    assert outcomes["receipts"] == "not checked"


@pytest.mark.parametrize(
    ("words", "code", "start"),
    [
        (("EU.zip",), 11, ""),
        (("missing.zip",), 4, "not_ready: missing.zip"),
        (("EU.zip", "--receipts", "trust.keys"), 10, ""),
        (("EU.zip", "--trust", "receipts.json"), 3, "config: receipts.json line 1"),
        (("EU.zip", "--format", "pdf"), 2, "usage: "),
        (("EU.zip", "-o", "x.pdf"), 4, "not_ready: x.pdf"),
        (("EU.zip", "-o", "x.html"), 4, "not_ready: x.html"),
        (("EU.zip", "-o", "missing/x.json"), 4, "not_ready: missing/x.json"),
        (("EU.zip", "--format", "json", "-o", "EU.zip"), 4, "not_ready: EU.zip"),
        ((), 2, "usage: "),
    ],
    ids=str,
)
def test_codes(fedfsd, words, code, start):
    said = fedfsd(*words)
    assert said.returncode == code
    assert said.stderr.startswith(start)
    assert said.stderr.count("\n") <= 1


@pytest.mark.parametrize("name", ["x.sarif", "x.json", "x.txt"])
def test_the_ending_names_the_format(fedfsd, tmp_path, name):
    path = tmp_path / name
    said = fedfsd("US.zip", "--trust", "trust.keys", "-o", str(path))
    assert said.returncode == 10
    assert "verdict: contradicted: filter, rules" in said.stdout
    written = path.read_text(encoding="utf-8")
    assert "contradicted" in written
    if name in ("x.sarif", "x.json"):
        assert json.loads(written)


# What quotes evidence.


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> Report:
    """Evidence whose texts try to be markup; a data set's label may hold anything that is printable."""
    folder = tmp_path_factory.mktemp("evil")
    forge = Forge()
    forge.grant(data_set=LABEL)
    forge.approve(plan_of())
    forge.edit(1, max_plans=0)
    held = folder / NAME
    held.write_text("no note")
    return check(folder, forge, extra=(held,))


def test_text_holds_no_control_characters(evil):
    for written in (text(evil), json.dumps(document(evil)), json.dumps(sarif(evil))):
        assert all(char.isprintable() or char == "\n" for char in written)
    assert "\\x1b[2J\\u202e" in text(evil)


def test_sarif_is_what_tools_expect(evil):
    """The parts of the 2.1.0 schema that consumers rely on."""
    log = sarif(evil)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"]
    assert [rule["id"] for rule in rules] == list(
        dict.fromkeys(one.name for part in evil.parts for one in part.answers)
    )
    assert all(rule["shortDescription"]["text"] for rule in rules)
    assert run["invocations"][0]["exitCode"] == 10
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["kind"] in ("pass", "open", "informational", "notApplicable", "review", "fail")
        assert result["kind"] == "fail" or result["level"] == "none"
        (location,) = result["locations"]
        assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", location["physicalLocation"]["artifactLocation"]["uri"])
        assert all(one["name"] for one in location.get("logicalLocations", []))
    failed = [result["ruleId"] for result in run["results"] if result["level"] == "error"]
    assert set(failed) == {"filter", "rules"}
    assert len(failed) == len([one for part in evil.parts for a in part.answers for one in a.findings
                               if one.kind == Kind.CONTRADICTED])  # fmt: skip


def test_many_findings_are_counted(tmp_path):
    forge, plan = Forge(), plan_of(rounds=30)
    forge.grant()
    forge.approve(plan)
    for number in range(1, 31):
        forge.round(plan, number)
    for seq in range(3, 63, 2):
        forge.edit(seq, arrays="0" * 64, spent=0)
    report = check(tmp_path, forge)
    (answer,) = [one for one in report.parts[0].answers if one.name == "filter"]
    assert (len(answer.findings), answer.more) == (20, 10)
    assert "10 more findings are not shown" in text(report)


def test_regions_stand_beside_each_other(tmp_path):
    forges = [Forge(name) for name in ("CN", "EU", "SG", "US", "BR")]
    for one in forges:
        one.grant()
    written = text(check(tmp_path, *forges))
    assert re.search(r"check +CN +EU +SG +US\n", written)
    assert re.search(r"check +BR\n", written)
    assert "CN, EU, SG, US, BR: approvals: no grant demands an approval" in written
