"""Catalogues: nothing missing, nothing stale, placeholders that agree; all that is said is in them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from string import Formatter

import pytest
from audit.audit_kit import Region, audited, plan_of, receipts
from audit.forge import Forge

from fedfsd import language
from fedfsd.audit.column import DECLARED, KNOWN
from fedfsd.audit.column import page as columns
from fedfsd.audit.evidence import load
from fedfsd.audit.explained import document as checks
from fedfsd.audit.report import report
from fedfsd.audit.report_page import page
from fedfsd.audit.report_page import text as markdown
from fedfsd.audit.statement import statement
from fedfsd.audit.statement_text import text as statement_text
from fedfsd.audit.text import text as findings
from fedfsd.audit.transfer import as_csv, missing, transfers
from fedfsd.audit.verify import claims, verify
from fedfsd.cli import main
from fedfsd.errors import UsageError
from fedfsd.language import __main__ as catalogues
from fedfsd.language import say, speaking
from fedfsd.plain_text import columns as width

PATHS = sorted(language.HERE.glob("*/LC_MESSAGES/fedfsd.po"))
CHINESE = re.compile("[\u4e00-\u9fff]")


def strings(message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string)


def ids(message) -> list[str]:
    return [message.id] if isinstance(message.id, str) else list(message.id)


def fields(text: str) -> Counter:
    return Counter((name, spec) for _, name, spec, _ in Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parts[-3])
def test_no_sentence_is_missing_and_none_is_stale(path):
    kept, wanted = catalogues.read(path), catalogues.template()
    assert {one.id for one in kept} == {one.id for one in wanted}, "run python -m fedfsd.language"
    assert not kept.obsolete
    empty = [one.id for one in kept if one.id and not all(strings(one))]
    assert not empty
    assert not [one.id for one in kept if one.id and one.fuzzy]
    assert path.with_suffix(".mo").read_bytes() == catalogues.compiled(kept)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parts[-3])
def test_placeholders_agree(path):
    for one in catalogues.read(path):
        if one.id:
            for text in strings(one):
                assert fields(text) == fields(ids(one)[-1]), one.id


def test_there_is_a_language_and_an_unknown_one_is_refused():
    assert language.languages() == ("en", "zh")
    with pytest.raises(UsageError, match="got xx, expected one of en, zh"), speaking("xx"):
        pass
    with speaking("zh"):
        assert say("Plans") == "计划"
        with speaking("en"):
            assert say("Plans") == "Plans"
    assert say("Plans") == "Plans"


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """Two regions, one of which rehearses too, and one that contradicts itself."""
    folder = tmp_path_factory.mktemp("evidence")
    eu, cn = Region(folder), Region(folder, "CN", simulated=True)
    eu.grant(epsilon=8.0, approval_required=True, disjoint=False)
    eu.permit()
    eu.run(plan_of())
    second = plan_of(rounds=4, noise=3.0, name="second")
    eu.approve(second)
    eu.round(second, 1)
    eu.ledger.incident("software", "the node was restarted", plan_hash=second.hash)
    cn.grant()
    cn.run(plan_of("CN", mode="rehearsal"))
    sound, _ = audited(folder, eu, cn, receipts=receipts(folder, eu, leave_out=(2,)))
    spender = Forge("US")
    spender.story()
    spender.edit(1, rho_max=1)
    return sound, load([spender.bundle(folder), eu.bundle()])


def everything(given) -> dict[str, str]:
    """All that is written about evidence."""
    found = verify(given)
    told, recorded = report(given, found), transfers(given, found)
    return {
        "statement": statement_text(statement(given, found)),
        "page": re.sub(r"<style>.*?</style>|<[^>]+>", " ", page(told), flags=re.S),
        "markdown": markdown(told),
        "findings": findings(found),
        "record": as_csv(recorded),
        "missing": "\n".join(missing(recorded)),
        "columns": columns(),
        "checks": str(checks(claims())),
    }


@pytest.mark.parametrize("which", [0, 1], ids=["sound", "contradicted"])
def test_what_is_said_is_in_the_catalogue(evidence, which, monkeypatch):
    """Whatever is looked up while everything is written is found, or is no sentence of ours."""
    unknown = set()
    with speaking("zh"):
        catalogue = language._SPOKEN.get()[1]
        known = set(catalogue._catalog)
        real = catalogue.gettext

        def looked_up(text: str) -> str:
            if text not in known and re.search("[a-z]{3}", text) and not CHINESE.search(text):
                unknown.add(text)
            return real(text)

        monkeypatch.setattr(catalogue, "gettext", looked_up)
        everything(evidence[which])
    assert unknown <= {"mlp"}, unknown


def _hex(digits: int) -> str:
    return rf"(?<![0-9a-zA-Z])[0-9a-f]{{{digits}}}(?![0-9a-zA-Z])"


@pytest.mark.parametrize("which", [0, 1], ids=["sound", "contradicted"])
def test_figures_names_and_hashes_stay(evidence, which):
    english = everything(evidence[which])
    with speaking("zh"):
        chinese = everything(evidence[which])
    for name, text in english.items():
        assert CHINESE.search(chinese[name]), name
        assert not CHINESE.search(text), name
        for pattern in (_hex(8), _hex(64), r"fedfsd/[a-z]+/[a-zA-Z]+"):
            assert Counter(re.findall(pattern, text)) == Counter(re.findall(pattern, chinese[name])), name
    for name in ("statement", "page", "record"):
        figures = [Counter(re.findall(r"\d+\.\d\d+", told[name])) for told in (english, chinese)]
        assert figures[0] == figures[1], name


def test_a_record_has_headings_for_people(evidence):
    with speaking("zh"):
        text = as_csv(transfers(evidence[0], verify(evidence[0])))
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert len(set(head)) == len(head) == len(KNOWN) + len(DECLARED)
    assert all(CHINESE.search(one) for one in head if one != "delta")
    places = {one.name: place for place, one in enumerate(KNOWN)}
    assert rows[0][places["direction"]] == "出境"
    assert {row[places["unit"]] for row in rows} == {"车辆"}


def test_lines_of_a_statement_are_not_too_wide(evidence):
    with speaking("zh"):
        text = statement_text(statement(evidence[0], verify(evidence[0])))
    assert max(map(width, text.splitlines())) <= 94  # a closing mark may hang over
    assert not [line for line in text.splitlines() if line.strip()[:1] in set("，。；：、）”")]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["checks", "filter", "--lang", "zh"], "filter\n  在任何一条处"),
        (["transfers", "--columns", "--lang", "zh"], "不构成法律意见"),
    ],
    ids=str,
)
def test_the_command(capsys, words, shown):
    with pytest.raises(SystemExit) as end:
        main.run(["audit", *words])
    assert end.value.code == 0
    assert shown in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main.run(["audit", *words[:-1], "xx"])
    assert end.value.code == 2
