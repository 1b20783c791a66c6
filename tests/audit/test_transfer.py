"""The record of transfers: every release once, its figures again by other means, cells that are only text."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import tomllib
from pathlib import Path

import forge
import pytest
from audit_kit import DATA, DELTA, FLOATS, HUB, Region, audited, model, plan_of, receipts, trust
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statement import at_delta, exactly, loss

from fedfsd import canonical
from fedfsd.audit.declaration import Declaration, Exporter, Recipient, declarations
from fedfsd.audit.evidence import load
from fedfsd.audit.transfer import KNOWN, as_csv, declared_columns, transfers
from fedfsd.audit.verify import verify
from fedfsd.cli import main
from fedfsd.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "clients" / "deploy" / "transfer" / "example.toml"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(document: dict) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(document), newline="")))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Two plans over the turn of a year, under approvals of one year each; round 2 never arrived."""
    folder = tmp_path_factory.mktemp("told")
    eu = Region(folder)
    eu.grant(epsilon=8.0, approval_required=True)
    eu.permit(max_releases=5)
    eu.permit(number="=2027/1", valid_from="2027-01-01", valid_until="2027-12-31")
    first, second = plan_of(), plan_of(rounds=4, noise=3.0, name="second")
    eu.run(first)
    eu.approve(second)
    eu.round(second, 1)
    eu.day = datetime.date(2027, 1, 1)
    eu.round(second, 2)
    eu.round(second, 3)
    path = receipts(folder, eu, leave_out=(2,))
    evidence, found = audited(folder, eu, receipts=path)
    assert found.outcome == "holds", found.headline
    return eu, evidence, found, transfers(evidence, found)


def test_one_row_a_release_with_what_was_sent(told):
    eu, evidence, _, document = told
    known = [one["known"] for one in document["transfers"]]
    assert all(tuple(one) == KNOWN for one in known)
    assert [(one["plan"], one["round"], one["sha256"], one["bytes"], one["entry_hash"]) for one in known] == [
        (plan.hash, number, canonical.sha256(sent.content), 4 * FLOATS, sent.entry_hash)
        for plan, number, sent in eu.released
    ]
    state = eu.ledger.state
    assert {one["ledger_root"] for one in known} == {state.tree.root(len(evidence.ledgers[0].lines)).hex()}
    assert {(one["parameters"], one["dtype"], one["arrays"]) for one in known} == {(FLOATS, "float32", 1)}
    assert [one["inbound_arrays"] for one in known] == [
        canonical.sha256(b"arrays%d" % number) for _, number, _ in eu.released
    ]
    assert {(one["recipient"], one["purpose"], one["data_set"]) for one in known} == {
        (HUB.name, "research", DATA)
    }
    assert [one["delivery"] for one in known] == [
        "undelivered" if number == 2 else "received" for _, number, _ in eu.released
    ]
    assert {one["verification"] for one in known} == {"holds"}


def test_privacy_of_each_object_and_in_all(told):
    eu, _, _, document = told
    known = [one["known"] for one in document["transfers"]]
    alpha = eu.ledger.state.accounts[DATA].grant.alpha
    spent = [
        *(loss(2.0, 4 * number, alpha) for number in (1, 2, 3)),
        *(loss(2.0, 12, alpha) + loss(3.0, 4 * number, alpha) for number in (1, 2, 3)),
    ]
    assert [one["rho_spent_nats"] for one in known] == pytest.approx(spent, abs=1e-6)
    assert [one["epsilon_cumulative"] for one in known] == pytest.approx(
        [at_delta(one, alpha) for one in spent], abs=1e-6
    )
    assert [one["epsilon_object"] for one in known] == pytest.approx(
        [exactly(2.0, 4)] * 3 + [exactly(3.0, 4)] * 3, abs=1e-6
    )
    assert [one["epsilon_plan"] for one in known] == pytest.approx(
        [exactly(2.0, 12)] * 3 + [exactly(3.0, 16)] * 3, abs=1e-6
    )
    for one in known:
        assert (one["unit"], one["adjacency"], one["steps"], one["sample_rate"]) == (
            "vehicle",
            "zero-out",
            4,
            0.1,
        )
        assert (one["delta"], one["epsilon_granted"], one["max_grad_norm"]) == (DELTA, 8.0, 0.5)


def test_approvals_and_counters_begin_anew_each_year(told):
    known = [one["known"] for one in told[3]["transfers"]]
    assert [one["date"] for one in known] == ["2026-11-22"] * 4 + ["2027-01-01"] * 2
    assert [one["approval_number"] for one in known] == ["2026/1"] * 4 + ["=2027/1"] * 2
    assert [one["approval_valid_until"] for one in known] == ["2026-12-31"] * 4 + ["2027-12-31"] * 2
    counts = [1, 2, 3, 4, 1, 2]
    for name in ("approval_releases_in_year", "recipient_releases_in_year"):
        assert [one[name] for one in known] == counts
    for name in ("approval_bytes_in_year", "recipient_bytes_in_year"):
        assert [one[name] for one in known] == [4 * FLOATS * one for one in counts]
    assert [one["approval_number"] for one in rows(told[3])][-1] == "'=2027/1"


def test_the_table_is_the_document(told):
    document = told[3]
    table = rows(document)
    for row, one in zip(table, document["transfers"], strict=True):
        assert list(row) == [*KNOWN, *one["declared"]]
        assert row["sha256"] == one["known"]["sha256"]
        assert float(row["epsilon_cumulative"]) == pytest.approx(one["known"]["epsilon_cumulative"], rel=1e-8)
    assert json.loads(json.dumps(document)) == document


def test_what_nobody_declares_stays_empty_and_the_rest_is_kept_apart(told):
    _, evidence, found, silent = told
    assert all(set(one["declared"].values()) == {None} for one in silent["transfers"])
    assert {row["exporter.legal_entity"] for row in rows(silent)} == {""}
    told_too = Declaration(region="EU", exporter=Exporter(legal_entity="Example GmbH"))
    document = transfers(evidence, found, {"EU": told_too, "CN": Declaration(region="CN")})
    assert {row["exporter.legal_entity"] for row in rows(document)} == {"Example GmbH"}
    assert {row["recipient.country"] for row in rows(document)} == {""}


def test_the_example_names_every_key():
    whole = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"))
    made = tomllib.loads(whole)
    fields = {name: field.annotation for name, field in Declaration.model_fields.items() if name != "region"}
    assert set(made) == {"region", *fields}
    for table, kind in fields.items():
        assert list(made[table]) == list(kind.model_fields), table


def test_the_example_is_read_as_it_is_and_filled(tmp_path):
    assert declarations([EXAMPLE]) == {"EU": Declaration(region="EU")}
    path = tmp_path / "eu.toml"
    path.write_text(re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8")))
    (one,) = declarations([path]).values()
    assert None not in declared_columns(one).values()


@pytest.mark.parametrize(
    "content",
    [
        'region = "EU"\n[exporter]\nlegal_entty = "x"',
        'region = "EU"\n[exporter]\nlegal_entity = ""',
        'region = "EU"\n[exporter]\nlegal_entity = 3',
        f'region = "EU"\n[exporter]\nlegal_entity = "{"x" * 2001}"',
        'region = "../x"',
        "",
        "region = ",
    ],
    ids=["unknown key", "empty", "number", "too long", "no region's name", "nothing", "no TOML"],
)
def test_a_region_file_that_is_none(tmp_path, content):
    path = tmp_path / "x.toml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        declarations([path])


def test_two_files_of_one_region(tmp_path):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text('region = "EU"')
    with pytest.raises(ConfigError, match="EU again"):
        declarations([tmp_path / "a.toml", tmp_path / "b.toml"])


def test_contradicted_evidence_and_rehearsals_have_rows_but_no_epsilon(tmp_path):
    spender = forge.Forge("US")
    spender.story()
    spender.edit(1, rho_max=1)
    eu = Region(tmp_path)
    eu.grant()
    eu.run(plan_of(mode="rehearsal"))
    evidence = load([spender.bundle(tmp_path), eu.bundle()])
    document = transfers(evidence, verify(evidence))
    known = [one["known"] for one in document["transfers"]]
    assert [one["region"] for one in known] == ["EU"] * 3 + ["US"] * 2
    assert [one["verification"] for one in known] == ["cannot decide"] * 3 + ["contradicted"] * 2
    assert document["heading"] == "rehearsal, no guarantee"
    assert {one["heading"] for one in known} == {"rehearsal, no guarantee", ""}
    for one in known:
        assert not [name for name in KNOWN if name.startswith("epsilon") and one[name] is not None]


def test_receipts_that_are_not_signed_deliver_nothing(told, tmp_path):
    path = tmp_path / "receipts.json"
    content = (told[0].folder.parent / "receipts.json").read_bytes()
    path.write_bytes(content.replace(b'"run":"test"', b'"run":"tost"'))
    evidence = load([told[0].bundle()], receipts=path)
    found = verify(evidence)
    assert found.outcome == "contradicted"
    assert {one["known"]["delivery"] for one in transfers(evidence, found)["transfers"]} == {None}


def test_cells_of_a_ledger_are_only_text(tmp_path):
    eu = Region(tmp_path)
    formula = '=HYPERLINK("http://e.example";"x")'
    eu.grant(data_set="-2+3", approval_required=True)
    eu.permit(
        data_set="-2+3",
        authority="@SUM(A1)",
        number=formula,
        recipient="+1",
        purpose="=1",
        models=("*",),
    )
    plan = plan_of(model=model("\t=cmd|' /C calc'!A0\r\n" + "m" * 10_000))
    eu.approve(plan, recipient="+1", purpose="=1")
    eu.round(plan, 1)
    document = transfers(*audited(tmp_path, eu))
    (row,) = rows(document)
    assert row["approval_number"] == "'" + formula
    assert [row[name] for name in ("data_set", "approval_authority", "recipient", "purpose")] == [
        *("'-2+3", "'@SUM(A1)", "'+1", "'=1")
    ]
    assert row["model"].startswith("\\t=cmd")
    assert len(row["model"]) < 300
    assert as_csv(document).count("\n") == 2
    assert not any(cell.lstrip(" ").startswith(FORMULA) for cell in row.values())


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_declared_text_is_one_harmless_cell(text):
    document = {
        "transfers": [
            {
                "known": dict.fromkeys(KNOWN),
                "declared": declared_columns(Declaration(region="EU", recipient=Recipient(country=text))),
            }
        ]
    }
    (row,) = rows(document)
    cell = row["recipient.country"]
    assert cell.isprintable()
    assert not cell.lstrip(" ").startswith((*FORMULA, "＝", "＋", "－", "＠"))
    assert as_csv(document).count("\n") == 2
    if text.isprintable() and text[0].isalpha():
        assert cell == text


@pytest.mark.parametrize(
    ("words", "code", "start"),
    [
        (["EU.zip", "--trust", "trust.keys"], 0, '"record","region",'),
        (["EU.zip", "--format", "json"], 11, '{\n "format": 1,\n "kind": "fedfsd-transfers"'),
        (["EU.zip", "--trust", "trust.keys", "--json"], 0, '{\n "format": 1,\n "kind": "fedfsd-transfers"'),
        (["EU.zip", "-o", "x.xls"], 4, ""),
        (["EU.zip", "--trust", "trust.keys", "-o", "made.csv"], 0, "verification: holds\nwritten: made.csv"),
    ],
    ids=str,
)
def test_the_command(told, monkeypatch, capsys, words, code, start):
    folder = told[0].folder.parent
    trust(folder, told[0])
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        main.run(["audit", "transfers", *words])
    said = capsys.readouterr()
    assert end.value.code == code, said.err
    assert said.out.startswith(start)
    if "-o" in words and not code:
        with (folder / words[-1]).open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == 6
