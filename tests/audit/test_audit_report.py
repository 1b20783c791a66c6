"""The report of eighteen fields: figures again by other means, marks, and text that must stay text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import forge
import pytest
from audit_kit import DATA, FLOATS, Region, audited, model, plan_of, receipts, trust
from markdown_it import MarkdownIt

from fedfsd import canonical
from fedfsd.audit import timeline
from fedfsd.audit.declaration import Declaration, Practice
from fedfsd.audit.evidence import load
from fedfsd.audit.report import FIELDS, report
from fedfsd.audit.report_page import page
from fedfsd.audit.report_page import text as markdown
from fedfsd.audit.timeline import HEIGHT, WIDTH, drawing
from fedfsd.audit.transfer import as_csv, transfers
from fedfsd.audit.verify import verify
from fedfsd.cli import main
from fedfsd.errors import FedfsdError
from fedfsd.ledger import bundle, note

VICIOUS = (
    "<script>alert(1)</script>\"'{{7*7}}{% x %}|**b** [l](http://e.example) `c` & www.e.example =1+1 &lt;"
)
SHORT = VICIOUS[:200]
CONTROL = "red\x1b[31m\u202egreen\u0000\x07\r\nnext"


def facts(document: dict, place: int, region: int = 0) -> dict[str, dict]:
    """The facts of one field by label; of equal labels the last."""
    field = document["regions"][region]["fields"][place - 1]
    assert field["number"] == place
    return {one["label"]: one for one in field["facts"]}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """EU ran a plan, broke off another one and had an incident; round 2 never arrived. CN only looked on."""
    folder = tmp_path_factory.mktemp("told")
    eu, cn = Region(folder, "EU"), Region(folder, "CN")
    eu.grant(epsilon=8.0)
    cn.grant(epsilon=4.0)
    eu.permit()
    first, second = plan_of("EU", "CN"), plan_of("EU", rounds=4, noise=3.0, name="second")
    eu.run(first)
    eu.approve(second)
    eu.round(second, 1)
    booked = eu.ledger.reserve(second.hash, 2, canonical.sha256(b"other"))
    eu.ledger.abort(booked, "operator")
    for number, arrays in ((2, "a" * 64), (9, "b" * 64)):
        with pytest.raises(FedfsdError):
            eu.ledger.reserve(second.hash, number, arrays)
    eu.ledger.incident("software", "the node was restarted", plan_hash=second.hash)
    eu.ledger.settle(second.hash)
    path = receipts(folder, eu, leave_out=(2,))
    evidence, found = audited(folder, eu, cn, receipts=path)
    assert found.outcome == "holds", found.headline
    return eu, evidence, found, report(evidence, found)


def test_eighteen_fields_each_with_facts_that_say_how_they_are_known(told):
    document = told[3]
    for region in document["regions"]:
        assert [one["number"] for one in region["fields"]] == list(range(1, 19))
        for field in region["fields"]:
            assert field["facts"], field["title"]
            for fact in field["facts"]:
                assert fact["mark"] in document["marks"]
                assert bool(fact["source"]) == bool(fact["value"]) == (fact["mark"] != "not stated")


def test_outputs_are_the_bytes_that_were_sent(told):
    eu, _, _, document = told
    rows = document["regions"][1]["releases"]
    assert [(one["plan"], one["round"], one["sha256"], one["bytes"], one["entry_hash"]) for one in rows] == [
        (plan.hash, number, canonical.sha256(sent.content), 4 * FLOATS, sent.entry_hash)
        for plan, number, sent in eu.released
    ]
    assert [one["delivery"] for one in rows] == ["received", "undelivered", "received", "received"]
    said = facts(document, 7, region=1)
    assert said["releases"]["value"] == "4 releases, 80 bytes in all; each is listed"
    assert said["delivery, by the coordinator's receipts"]["value"].startswith("3 received, 1 undelivered")
    schema = canonical.digest([{"dtype": "float32", "name": "weight", "shape": [FLOATS]}])
    assert said["schemas, SHA-256"]["value"] == schema


def test_what_did_not_go_as_planned(told):
    said = facts(told[3], 14, region=1)
    assert said["reservations given up, charged nevertheless"]["value"] == "1"
    assert said["rounds booked and not released"]["value"] == "0"
    assert said["plans that ended early"]["value"] == told[3]["regions"][1]["plans"][1]["plan"][:8]
    (incident,) = (one for label, one in said.items() if label.startswith("incident in entry"))
    assert (incident["value"], incident["mark"]) == ("the node was restarted", "declared")
    assert facts(told[3], 10, region=1)["refused requests"]["value"] == "arrays (2)"


def test_figures_of_plans(told):
    from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

    first, second = told[3]["regions"][1]["plans"]
    assert [second[name] for name in ("sample_rate", "noise_multiplier", "max_grad_norm", "steps")] == [
        *(0.1, 3.0, 0.5, 16)
    ]
    assert (first["roster"], first["divisor"], first["windows_per_vehicle"]) == (1000, 100.0, 8)
    accountant = PRVAccountant(
        prvs=[PoissonSubsampledGaussianMechanism(noise_multiplier=2.0, sampling_probability=0.1)],
        max_self_compositions=[12],
        eps_error=0.01,
        delta_error=1e-8,
    )
    low, estimate, high = accountant.compute_epsilon(1e-4, [12])
    assert first["epsilon_prv"] == pytest.approx([low, estimate, high], abs=2e-3)
    assert low <= first["epsilon"] <= high
    assert first["epsilon"] <= first["epsilon_rdp"]
    assert facts(told[3], 8, region=1)["noise multiplier sigma"]["value"] == (
        f"2 (plan {first['plan'][:8]}); 3 (plan {second['plan'][:8]})"
    )


def test_the_timeline_is_the_running_sum(told):
    eu, _, _, document = told
    (line,) = document["regions"][1]["timelines"]
    state = eu.ledger.state.accounts[DATA]
    assert (line["points"][-1]["spent"], line["points"][-1]["held"]) == (state.spent, state.held)
    spent = [one["spent"] for one in line["points"]]
    assert spent == sorted(spent)
    assert spent[0] == 0
    assert len(set(spent)) == 6  # nothing, three rounds, one released and one given up
    assert all(one["spent"] + one["held"] <= one["granted"] for one in line["points"])
    assert [one["what"] for one in line["events"]][-1] == "incident (software)"
    drawn = drawing(line)
    numbers = [float(one) for path in ("spent", "held", "line", "grant") for one in _numbers(drawn[path])]
    assert all(0 <= one <= max(WIDTH, HEIGHT) for one in numbers)
    heights = {word: height for word, height, _ in drawn["labels"]}
    floor, cap = drawn["floor"], _numbers(drawn["grant"])[1]
    assert heights["charged"] == pytest.approx(
        floor - (floor - cap) * state.spent / state.grant.rho_max, abs=0.2
    )
    for height, epsilon in drawn["ticks"]:
        grant = state.grant
        nothing = line["points"][-1]["epsilon_lifetime"] - state.spent / 1e9
        rho = (epsilon - nothing) * 1e9
        assert height == pytest.approx(floor - (floor - cap) * rho / grant.rho_max, abs=0.2)


def _numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"[0-9.]+", path)]


@pytest.mark.slow
def test_a_long_ledger_is_thinned_and_keeps_its_ends(tmp_path, monkeypatch):
    eu = Region(tmp_path)
    eu.grant()
    eu.run(plan_of(rounds=30, noise=50.0))
    evidence, found = audited(tmp_path, eu)
    (whole,) = report(evidence, found)["regions"][0]["timelines"]
    assert len(whole["points"]) == 32  # the grant, the plan, and each round; settling frees nothing
    monkeypatch.setattr(timeline, "MOST_POINTS", 10)
    (thin,) = report(evidence, found)["regions"][0]["timelines"]
    assert len(thin["points"]) <= 12
    assert [thin["points"][place] for place in (0, -1)] == [whole["points"][place] for place in (0, -1)]


@pytest.mark.slow
def test_what_is_held_is_drawn_above_what_is_booked(tmp_path):
    eu = Region(tmp_path)
    eu.grant(epsilon=4.0)
    plan = plan_of(rounds=4)
    eu.approve(plan)
    eu.round(plan, 1)
    evidence, found = audited(tmp_path, eu)
    drawn = drawing(report(evidence, found)["regions"][0]["timelines"][0])
    heights = {word: height for word, height, _ in drawn["labels"]}
    floor, cap = drawn["floor"], _numbers(drawn["grant"])[1]
    state = eu.ledger.state.accounts[DATA]
    whole = floor - (floor - cap) * (state.spent + state.held) / state.grant.rho_max
    assert heights["charged"] == pytest.approx(whole, abs=0.2)
    assert heights["granted"] < heights["charged"] < heights["spent"]
    assert _numbers(drawn["held"])[3] < floor


def test_what_a_region_declares_is_marked_and_what_it_leaves_out_is_too(told):
    _, evidence, found, silent = told
    every = {name: f"said of {name}" for name in Practice.model_fields}
    document = report(evidence, found, {"EU": Declaration(region="EU", practice=Practice(**every))})
    for region, mark in ((0, "not stated"), (1, "declared")):
        values = {
            fact["value"]: fact["mark"]
            for field in document["regions"][region]["fields"]
            for fact in field["facts"]
        }
        for text in every.values():
            assert values.get(text) == (mark if region else None)
    assert facts(silent, 16)["protocol and results"]["mark"] == "not stated"
    assert facts(document, 16, region=1)["protocol and results"]["mark"] == "declared"


def test_contradicted_evidence_is_recomputed_by_nobody(tmp_path):
    spender = forge.Forge()
    spender.story()
    spender.edit(1, rho_max=1)
    evidence = load([spender.bundle(tmp_path)], trust=forge.trust(tmp_path, spender))
    document = report(evidence, verify(evidence))
    (region,) = document["regions"]
    assert not [fact for field in region["fields"] for fact in field["facts"] if fact["mark"] == "recomputed"]
    assert facts(document, 1)["claim"]["value"] == "No guarantee is stated: the evidence contradicts itself."
    assert [one["epsilon"] for one in region["plans"]] == [None]
    html = page(document)
    assert "the evidence is contradicted" in html
    assert "ε 0." not in html
    assert "What is contradicted" in markdown(document)


@pytest.mark.slow
@pytest.mark.parametrize("misdeed", ["drop", "drop all after", "twice", "first again"])
def test_a_damaged_ledger_is_told_without_a_claim(tmp_path, misdeed):
    """Whatever is missing or doubled: every output is written, and none of them promises anything."""
    honest = forge.Forge()
    honest.story()
    for place in range(len(honest.entries)):
        damaged = forge.Forge()
        damaged.entries = list(honest.entries)
        if misdeed == "drop":
            del damaged.entries[place]
        elif misdeed == "drop all after":
            del damaged.entries[place:]
        else:
            damaged.entries.insert(place, honest.entries[place if misdeed == "twice" else 0])
        if misdeed != "drop" and damaged.entries:
            damaged.renumber()
        elif not damaged.entries:
            continue
        evidence = load([_bundle(tmp_path, honest, damaged)], trust=forge.trust(tmp_path, honest))
        found = verify(evidence)
        document = report(evidence, found, vehicles_cross=True)
        read(page(document))
        assert markdown(document)
        assert json.dumps(document, allow_nan=False)
        as_csv(transfers(evidence, found))
        if found.outcome == "contradicted":
            assert not document["joint"]["guarantee"]
            assert not document["regions"][0]["guarantee"]
        else:  # a ledger that merely ends earlier is an honest one
            assert misdeed == "drop all after" or (misdeed, place) == ("drop", len(honest.entries) - 1)


def _bundle(folder: Path, honest: forge.Forge, damaged: forge.Forge) -> Path:
    """The damaged entries under a signed head of their own."""
    path = folder / "EU.zip"
    head = note.Checkpoint(honest.node.name, len(damaged.entries), damaged.tree.root())
    heads = [(0, len(damaged.entries), note.sign(head.text, [honest.node]))]
    ledger = honest.entries[0].ledger
    bundle.write(path, region="EU", ledger=ledger, entries=damaged.contents, checkpoints=heads)
    return path


class Inert(HTMLParser):
    """Notes everything in a page that could act, load or lead elsewhere."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.bad: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        self.note(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.note(tag, attributes)

    def note(self, tag, attributes):
        for name, value in attributes:
            known = name in {
                "class",
                "style",
                "aria-label",
                "role",
                "lang",
                "charset",
                "content",
                "name",
                "open",
                "tabindex",
            }
            known = known or name in {"http-equiv", "x", "y", "d", "viewbox", "colspan", "title"}
            if not known or "url(" in (value or ""):
                self.bad.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def read(html: str) -> Inert:
    found = Inert()
    found.feed(html)
    found.close()
    assert not found.open
    assert not found.bad, found.bad
    assert not found.tags & {"script", "a", "img", "iframe", "form", "link", "object", "embed", "input"}
    return found


def test_the_page_is_one_file_that_does_nothing(told):
    html = page(told[3])
    found = read(html)
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert "http://" not in html
    assert "https://" not in html
    assert {"svg", "details", "table", "blockquote"} <= found.tags
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    text = " ".join(found.text)
    for title, _ in FIELDS:
        assert title in text
    for word in ("None", "nan", "undefined"):
        assert not re.search(rf"\b{word}\b", text), word


def test_text_from_everywhere_stays_text(tmp_path):
    eu = Region(tmp_path)
    eu.grant(data_set=SHORT)
    eu.permit(data_set=SHORT, authority=SHORT, number=SHORT, recipient=SHORT, purpose=SHORT, models=(SHORT,))
    plan = plan_of(name=CONTROL + VICIOUS, model=model(VICIOUS + CONTROL + "x" * 100_000))
    eu.approve(plan, recipient=SHORT, purpose=SHORT)
    eu.ledger.incident("other", SHORT * 9)
    every = dict.fromkeys(Practice.model_fields, (VICIOUS + CONTROL + "y" * 3000)[:2000])
    evidence, found = audited(tmp_path, eu)
    document = report(evidence, found, {"EU": Declaration(region="EU", practice=Practice(**every))})
    html, md, plain = page(document), markdown(document), json.dumps(document, ensure_ascii=False)
    assert VICIOUS[:60] in " ".join(read(html).text)
    assert "49" not in re.findall(r"\b49\b", html)
    for output in (html, md, plain):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2028]", output)
        assert len(output) < 1_000_000
    rendered = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"]).render(md)
    assert not re.search(r"<(script|a|img|code)\b", rendered)
    assert "<script>" not in md
    assert VICIOUS[:25].replace("<", "&lt;").replace(">", "&gt;") in rendered


def test_markdown_says_what_the_page_says(told):
    md = markdown(told[3])
    for place, (title, _) in enumerate(FIELDS, 1):
        assert f"### {place}. {title}" in md
    tables = [line for line in md.splitlines() if line.startswith("|")]
    assert len({line.count("|") - line.count("\\|") for line in tables}) == 3
    assert "None" not in md


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


@pytest.mark.slow
def test_the_command_in_the_light_install(told):
    folder = told[0].folder.parent
    trust(folder, told[0])
    words = ["EU.zip", "--receipts", "receipts.json", "--trust", "trust.keys", "-o", "report.html"]
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, "audit", "report", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "verification: holds\nwritten: report.html\n"), done.stderr
    read((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "code", "start"),
    [
        (["EU.zip"], 11, "# EU: epsilon at most 8.00"),
        (["EU.zip", "--trust", "trust.keys", "--format", "json"], 0, '{\n "format": 1'),
        (["EU.zip", "--trust", "trust.keys", "--json"], 0, '{\n "format": 1'),
        (["EU.zip", "--declaration", "missing.toml"], 3, ""),
        (["EU.zip", "--format", "pdf"], 2, ""),
        (["EU.zip", "-o", "report.pdf"], 4, ""),
        (["EU.zip", "--format", "html", "-o", "EU.zip"], 4, ""),
        (["missing.zip"], 4, ""),
    ],
    ids=str,
)
def test_codes(told, monkeypatch, capsys, words, code, start):
    folder = told[0].folder.parent
    trust(folder, told[0])
    monkeypatch.chdir(folder)
    before = Path("EU.zip").read_bytes()
    with pytest.raises(SystemExit) as end:
        main.run(["audit", "report", *words])
    said = capsys.readouterr()
    assert end.value.code == code, said.err
    assert said.out.startswith(start)
    assert "Traceback" not in said.err
    assert Path("EU.zip").read_bytes() == before
