"""``fedfsd audit statement``, ``report``, ``transfers``, ``checks``: what evidence lets anybody say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.destination import checked
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.language import ENGLISH, speaking
from fedfsd.plain_text import folded, plain

if TYPE_CHECKING:
    from fedfsd.audit.evidence import Evidence
    from fedfsd.audit.verdict import Report

Bundles = Annotated[list[Path], typer.Argument(metavar="BUNDLE...")]
Receipts = Annotated[Path | None, typer.Option(metavar="FILE", help="What the coordinator countersigned.")]
Trust = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Public keys you obtained out of band; without them the verdict is 'cannot decide'.",
    ),
]
Code = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Hashes of reviewed programs (fedfsd config code): the code on record must be among them.",
    ),
]
Declared = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="TOML",
        help="What a region declares beyond its ledger (transfers --template); one per region.",
    ),
]
Lang = Annotated[str, typer.Option(metavar="CODE", help="The language of headings and sentences: en, zh.")]
Releases = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Released updates (releases/ of a run folder): test the noise in every one of them.",
    ),
]
Canaries = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="What fedfsd audit canaries found of a plan; may be repeated."),
]
VehiclesCross = Annotated[
    bool, typer.Option("--vehicles-cross", help="A vehicle may be in several regions: add their losses.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="The file to write; its extension selects the format."
    ),
]


class ReportFormat(StrEnum):
    """How a report is written."""

    md = "md"
    json = "json"
    html = "html"


class RowsOption(StrEnum):
    """What a row of a record of transfers is about."""

    plan = "plan"
    release = "release"


class TransferFormat(StrEnum):
    """How a record of transfers is written."""

    csv = "csv"
    json = "json"


def statement(
    bundles: Bundles,
    trust: Trust = None,
    declaration: Declared = None,
    vehicles_cross: VehiclesCross = False,
    releases: Releases = None,
    canaries: Canaries = None,
    lang: Lang = ENGLISH,
    output: Output = None,
    _json: Json = False,
) -> Answer:
    """State the guarantee in sentences to quote.

    Per region and for all of them, once the evidence is verified. Exit code 10: contradicted, and
    nothing is stated; 11: holds if what could not be decided holds.
    """
    _checked(output, (".txt", ".json"), (*bundles, trust, *(declaration or ()), *(canaries or ())))
    from fedfsd.audit.declaration import declarations
    from fedfsd.audit.statement import statement as work
    from fedfsd.audit.statement_text import text

    declared = declarations(declaration or [])
    with speaking(lang):
        evidence, found = _verified(bundles, trust=trust, releases=releases, canaries=canaries or ())
        document = work(evidence, found, declared, vehicles_cross=vehicles_cross)
        kind = "json" if output and output.suffix.lower() == ".json" else "txt"
        written = text(document) if kind == "txt" else json.dumps(document, indent=1, allow_nan=False)
        return _answer(document, written, output, found)


def report(
    bundles: Bundles,
    receipts: Receipts = None,
    trust: Trust = None,
    code: Code = None,
    declaration: Declared = None,
    vehicles_cross: VehiclesCross = False,
    releases: Releases = None,
    canaries: Canaries = None,
    format: Annotated[ReportFormat | None, typer.Option(help="How to write it.")] = None,
    lang: Lang = ENGLISH,
    output: Output = None,
    _json: Json = False,
) -> Answer:
    """Report what auditors ask about privacy.

    Eighteen fields for each region, each fact marked recomputed, declared or not stated, and every
    spend against the grant. Exit codes as of audit verify.
    """
    files = (*bundles, receipts, trust, code, *(declaration or ()), *(canaries or ()))
    kind = _kind(format, output, tuple(ReportFormat), files)
    from fedfsd.audit.declaration import declarations
    from fedfsd.audit.report import report as work
    from fedfsd.audit.report_page import page, text

    declared = declarations(declaration or [])
    with speaking(lang):
        evidence, found = _verified(
            bundles,
            receipts=receipts,
            trust=trust,
            code=code,
            releases=releases,
            canaries=canaries or (),
        )
        document = work(evidence, found, declared, vehicles_cross=vehicles_cross)
        writers = {
            "md": lambda: text(document),
            "html": lambda: page(document),
            "json": lambda: json.dumps(document, indent=1, allow_nan=False),
        }
        return _answer(document, writers[kind](), output, found)


def transfers(
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="BUNDLE...")] = None,
    receipts: Receipts = None,
    trust: Trust = None,
    declaration: Declared = None,
    rows: Annotated[
        RowsOption, typer.Option(help="One row about each plan's releases, or one about each release.")
    ] = RowsOption.plan,
    template: Annotated[
        bool, typer.Option("--template", help="Write the form for --declaration instead.")
    ] = False,
    columns: Annotated[
        bool, typer.Option("--columns", help="Explain every column, with the rules that ask for it, instead.")
    ] = False,
    format: Annotated[TransferFormat | None, typer.Option(help="How to write it.")] = None,
    lang: Lang = ENGLISH,
    output: Output = None,
    _json: Json = False,
) -> Answer:
    """Record every transfer, one row a plan or a release.

    What the ledger shows, and beside it what the region declares; what neither says stays empty, and is
    counted. Exit codes as of audit verify.
    """
    if template or columns:
        return _paper(bundles or [], output, columns=columns, lang=lang)
    if not bundles:
        raise UsageError(
            "fedfsd audit transfers", got="no BUNDLE", hint="fedfsd audit transfers --help shows how"
        )
    files = (*bundles, receipts, trust, *(declaration or ()))
    kind = _kind(format, output, tuple(TransferFormat), files)
    from fedfsd.audit.declaration import declarations
    from fedfsd.audit.transfer import Rows, as_csv, missing
    from fedfsd.audit.transfer import transfers as work

    declared = declarations(declaration or [])
    with speaking(lang):
        evidence, found = _verified(bundles, receipts=receipts, trust=trust)
        document = work(evidence, found, declared, rows=Rows(rows))
        for sentence in missing(document):
            typer.echo(plain(sentence), err=True)
        written = as_csv(document) if kind == "csv" else json.dumps(document, indent=1, allow_nan=False)
        return _answer(document, written, output, found)


def checks(
    names: Annotated[list[str] | None, typer.Argument(metavar="CHECK...")] = None,
    lang: Lang = ENGLISH,
    _json: Json = False,
) -> Answer:
    """Explain the checks, and the words they use.

    CHECK is the name of one, as audit verify prints it; all of them if left out, with a glossary.
    """
    from fedfsd.audit.explained import CHECKS, document
    from fedfsd.audit.verify import claims

    for name in names or ():
        if name not in CHECKS:
            raise UsageError("CHECK", got=name, expected=f"one of {', '.join(CHECKS)}")
    with speaking(lang):
        found = document(claims(), tuple(names or ()))
        rows = [(one["name"], f"{one['claim']} {one['meaning']}") for one in found["checks"]]
        if not names:
            rows += [(one["term"], one["meaning"]) for one in found["glossary"]]
        return Answer(found, "\n\n".join(f"{name}\n{folded(text, indent='  ')}" for name, text in rows))


def _paper(bundles: Sequence[Path], output: Path | None, *, columns: bool, lang: str) -> Answer:
    """The form for a declaration, or the page on columns."""
    from fedfsd.audit.column import page
    from fedfsd.audit.declaration import template

    if columns:
        _checked(output, (".md",), bundles)
        with speaking(lang):
            written = page()
        document = {"columns": written}
    else:
        _checked(output, (".toml",), bundles)
        from fedfsd.audit.evidence import load

        ledgers = load(bundles).ledgers
        written = template(ledgers[0].region if ledgers else "EU")
        document = {"template": written}
    if output is None:
        return Answer(document, written.rstrip("\n"))
    if output.exists():
        raise NotReadyError(
            str(output), got="a file", expected="a new one", hint="choose another -o: nothing is overwritten"
        )
    output.write_text(written, encoding="utf-8")
    return Answer(document, f"written: {plain(output)}")


def _verified(
    bundles: Sequence[Path],
    *,
    receipts: Path | None = None,
    trust: Path | None = None,
    code: Path | None = None,
    releases: Path | None = None,
    canaries: Sequence[Path] = (),
) -> tuple[Evidence, Report]:
    from fedfsd.audit.evidence import load
    from fedfsd.audit.verify import verify

    evidence = load(bundles, receipts=receipts, trust=trust, code=code, releases=releases, canaries=canaries)
    return evidence, verify(evidence, partial(typer.echo, err=True))


def _kind(
    format: StrEnum | None, output: Path | None, formats: Sequence[StrEnum], files: Sequence[Path | None]
) -> str:
    """The format: as asked for, as the output's ending says, or the first."""
    endings = (f".{format}",) if format else tuple(f".{one}" for one in formats)
    _checked(output, endings, files)
    return str(format or (output.suffix.lower()[1:] if output else formats[0]))


def _checked(output: Path | None, endings: Sequence[str], files: Sequence[Path | None]) -> None:
    if output is not None:
        checked(output, *endings)
        if any(output.exists() and output.samefile(one) for one in files if one):
            raise NotReadyError(
                str(output), got="a file to be read", expected="another file", hint="choose another -o"
            )


def _answer(document: object, written: str, output: Path | None, found: Report) -> Answer:
    if output is not None:
        output.write_text(written.rstrip("\n") + "\n", encoding="utf-8", newline="")
        written = f"verification: {found.headline}\nwritten: {plain(output)}"
    return Answer(document, written.rstrip("\n"), found.exit_code)


COMMANDS = (
    ("statement", statement, "bundles/*.zip --trust trust.keys"),
    ("report", report, "bundles/*.zip --receipts receipts.json --trust trust.keys -o report.html"),
    ("transfers", transfers, "bundles/*.zip --declaration eu.toml -o transfers.csv"),
    ("checks", checks, "epsilon lifetime"),
)
