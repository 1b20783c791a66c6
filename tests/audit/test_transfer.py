"""The record of transfers: every release once, its figures again by other means, cells that are only text."""

from __future__ import annotations

import csv
import datetime
import hashlib
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
from setting import examples
from test_statement import at_delta, exactly, loss

from fedfsd import canonical
from fedfsd.audit import declaration
from fedfsd.audit.column import DECLARED, KNOWN, RULES, page
from fedfsd.audit.declaration import Declaration, Exporter, Recipient, declarations
from fedfsd.audit.evidence import load
from fedfsd.audit.finding import Kind
from fedfsd.audit.transfer import Rows, as_csv, declared_columns, missing, transfers
from fedfsd.audit.verify import verify
from fedfsd.cli import main
from fedfsd.errors import ConfigError, FedfsdError
from fedfsd.ledger import note
from fedfsd.ledger.key import SigningKey

FORM = Path(declaration.__file__).parent / "declaration.toml"
NAMES = tuple(one.name for one in KNOWN)
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
    return eu, evidence, found, transfers(evidence, found, rows=Rows.release)


def test_one_row_a_release_with_what_was_sent(told):
    eu, evidence, _, document = told
    known = [one["known"] for one in document["transfers"]]
    assert all(tuple(one) == NAMES for one in known)
    assert [
        (one["plan"], one["rounds"], one["sha256"], one["bytes"], one["last_entry_hash"]) for one in known
    ] == [
        (plan.hash, str(number), canonical.sha256(sent.content), 4 * FLOATS, sent.entry_hash)
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
    assert [one["epsilon_row"] for one in known] == pytest.approx(
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
    assert [one["date_first"] for one in known] == ["2026-11-22"] * 4 + ["2027-01-01"] * 2
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
        assert list(row) == [*NAMES, *one["declared"]]
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
    whole = re.sub(r"(?m)^# (\w+ = )", r"\1", FORM.read_text(encoding="utf-8"))
    made = tomllib.loads(whole)
    fields = {name: field.annotation for name, field in Declaration.model_fields.items() if name != "region"}
    assert set(made) == {"region", *fields}
    for table, kind in fields.items():
        assert list(made[table]) == list(kind.model_fields), table


def test_the_example_is_read_as_it_is_and_filled(tmp_path):
    assert declarations([FORM]) == {"EU": Declaration(region="EU")}
    path = tmp_path / "eu.toml"
    path.write_text(re.sub(r"(?m)^# (\w+ = )", r"\1", FORM.read_text(encoding="utf-8")))
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
    document = transfers(evidence, verify(evidence), rows=Rows.release)
    known = [one["known"] for one in document["transfers"]]
    assert [one["region"] for one in known] == ["EU"] * 3 + ["US"] * 2
    assert [one["verification"] for one in known] == ["cannot decide"] * 3 + ["contradicted"] * 2
    assert document["heading"] == "rehearsal, no guarantee"
    assert {one["heading"] for one in known} == {"rehearsal, no guarantee", None}
    for one in known:
        assert not [name for name in NAMES if name.startswith("epsilon") and one[name] is not None]


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


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_declared_text_is_one_harmless_cell(text):
    document = {
        "transfers": [
            {
                "known": dict.fromkeys(NAMES),
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
        (["EU.zip", "--format", "json"], 11, '{\n "format": 2,\n "kind": "fedfsd-transfers"'),
        (["EU.zip", "--trust", "trust.keys", "--json"], 0, '{\n "format": 2,\n "kind": "fedfsd-transfers"'),
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
            assert len(list(csv.DictReader(file))) == 3
    if not code:
        assert "EU: 67 of 67 declared fields are empty (exporter.legal_entity," in said.err
        assert "--template" in said.err


def test_the_form_names_the_region_and_is_never_written_over(told, monkeypatch, capsys):
    monkeypatch.chdir(told[0].folder.parent)
    for code in (0, 4):
        with pytest.raises(SystemExit) as end:
            main.run(["audit", "transfers", "EU.zip", "--template", "-o", "form.toml"])
        assert end.value.code == code, capsys.readouterr().err
    assert declarations([Path("form.toml")]) == {"EU": Declaration(region="EU")}
    with pytest.raises(SystemExit) as end:
        main.run(["audit", "transfers"])
    assert end.value.code == 2
    assert "no BUNDLE" in capsys.readouterr().err


def test_a_nodes_settings_are_no_declaration(tmp_path):
    path = tmp_path / "region.toml"
    path.write_text('name = "EU"')
    with pytest.raises(ConfigError, match=r"the settings of a node.*--template"):
        declarations([path])


def test_one_row_a_plan_under_one_permission(told):
    _, evidence, found, single = told
    document = transfers(evidence, found)
    ones = [one["known"] for one in single["transfers"]]
    rows = [one["known"] for one in document["transfers"]]
    groups = [ones[:3], ones[3:4], ones[4:]]  # the second plan goes on under the permission of 2027
    assert [(one["plan"], one["rounds"], one["approval_number"]) for one in rows] == [
        (ones[0]["plan"], "1-3", "2026/1"),
        (ones[3]["plan"], "1", "2026/1"),
        (ones[3]["plan"], "2-3", "=2027/1"),
    ]
    for row, group in zip(rows, groups, strict=True):
        assert tuple(row) == NAMES
        for name in ("bytes", "steps", "parameters", "releases"):
            assert row[name] == sum(one[name] for one in group)
        assert row["rho_nats"] == pytest.approx(sum(one["rho_nats"] for one in group))
        for name in (
            "epsilon_cumulative",
            "rho_spent_nats",
            "approval_bytes_in_year",
            "last_entry",
            "date_last",
        ):
            assert row[name] == group[-1][name]
        assert (row["first_entry"], row["record"]) == (group[0]["first_entry"], group[0]["record"])
        hashes = [one["sha256"] for one in group]
        lines = "".join(f"{one}\n" for one in hashes).encode()
        assert row["sha256"] == (hashes[0] if len(hashes) == 1 else hashlib.sha256(lines).hexdigest())
    assert [one["epsilon_row"] for one in rows] == pytest.approx(
        [exactly(2.0, 12), exactly(3.0, 4), exactly(3.0, 8)], abs=1e-6
    )
    assert [one["delivery"] for one in rows] == [
        "received (2), undelivered (1)",
        "received (1)",
        "undelivered (1), received (1)",
    ]


def test_time_of_day_by_a_witness_that_is_trusted(tmp_path):
    """Between the last cosignature before a round was booked and the first one after its release."""
    eu, seen = Region(tmp_path), []
    watcher = SigningKey.from_seed("watcher", b"w" * 32)
    eu.grant()
    plan = plan_of()
    eu.approve(plan)
    for number in (1, 2, 3):
        seconds = 1_795_000_000 + 3600 * number
        eu.ledger.witness(note.cosign(eu.ledger.checkpoint(), watcher, seconds=seconds), [watcher.cosigner])
        seen.append(datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        eu.round(plan, number)
    keys = trust(tmp_path, eu)
    evidence = load([eu.bundle()], trust=keys)
    silent = transfers(evidence, verify(evidence), rows=Rows.release)["transfers"]
    assert {one["known"]["witnessed_after"] for one in silent} == {None}
    keys.write_text(keys.read_text() + f"witness {watcher.cosigner}\n")
    evidence = load([eu.bundle()], trust=keys)
    known = [one["known"] for one in transfers(evidence, verify(evidence), rows=Rows.release)["transfers"]]
    assert [one["witnessed_after"] for one in known] == seen
    assert [one["witnessed_before"] for one in known] == [*seen[1:], None]
    (row,) = (one["known"] for one in transfers(evidence, verify(evidence))["transfers"])
    assert (row["witnessed_after"], row["witnessed_before"]) == (seen[0], None)


def test_a_permission_for_another_task_covers_nothing(tmp_path):
    eu = Region(tmp_path)
    eu.grant(approval_required=True)
    eu.permit(format=4, tasks=("camera",))
    plan = plan_of()
    eu.approve(plan)
    with pytest.raises(FedfsdError, match="for other tasks"):
        eu.ledger.reserve(plan.hash, 1, "a" * 64)
    eu.permit(number="2026/2", format=4, tasks=("camera", "forecasting"))
    eu.round(plan, 1)
    evidence, found = audited(tmp_path, eu)
    assert found.outcome == "holds", found.headline
    (row,) = (one["known"] for one in transfers(evidence, found)["transfers"])
    assert (row["task"], row["approval_tasks"]) == ("forecasting", "camera, forecasting")


def test_an_auditor_sees_a_transfer_under_a_permission_for_another_task(tmp_path):
    eu, plan = forge.Forge(), plan_of()
    eu.grant()
    place = eu.permit(format=4, tasks=("forecasting",))
    eu.approve(plan)
    eu.round(plan, 1, approval=place)
    assert not verify(load([eu.bundle(tmp_path)])).found(Kind.CONTRADICTED)
    eu.edit(place, tasks=("camera",))
    evidence = load([eu.bundle(tmp_path)])
    texts = [
        str(finding) for where, finding in verify(evidence).found(Kind.CONTRADICTED) if "approvals" in where
    ]
    assert any("for other tasks" in one for one in texts)


def test_every_column_says_what_it_is_and_which_rule_asks_for_it():
    assert [one.name for one in DECLARED] == list(declared_columns(None))
    columns, text = (*KNOWN, *DECLARED), page()
    assert len({one.title for one in columns}) == len(columns)
    assert {rule for one in columns for rule in one.rules} == {rule.name for rule in RULES}
    assert all(one.rules for one in columns if one.name != "heading")
    assert all(f"| `{one.name}` | {one.title} |" in text for one in columns)
    assert "not legal advice" in text
    assert (FORM.parents[2] / "clients" / "transfer-record.md").read_text(encoding="utf-8") == text


def test_sentences_on_what_is_empty_count_what_is_empty(told):
    _, evidence, found, _ = told
    half = Declaration(region="EU", exporter=Exporter(legal_entity="Example GmbH"))
    (sentence,) = missing(transfers(evidence, found, {"EU": half}))
    assert sentence.startswith(f"EU: {len(DECLARED) - 1} of {len(DECLARED)} declared fields are empty")
