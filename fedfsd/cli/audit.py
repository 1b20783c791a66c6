"""``fedfsd audit``: is what regions promise what their evidence says? Needs the base install only."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli import audit_replay, audit_report
from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.destination import checked
from fedfsd.errors import NotReadyError
from fedfsd.language import ENGLISH, speaking
from fedfsd.plain_text import plain


class Format(StrEnum):
    """How the findings are written."""

    text = "text"
    json = "json"
    sarif = "sarif"


tell = partial(typer.echo, err=True)
"""How far a long check is, for who waits."""
_SUFFIXES = {".txt": "text", ".json": "json", ".sarif": "sarif"}


def verify(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...")],
    receipts: audit_report.Receipts = None,
    trust: audit_report.Trust = None,
    code: audit_report.Code = None,
    releases: audit_report.Releases = None,
    format: Annotated[Format | None, typer.Option(help="How to write the findings.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The file to write; its extension selects the format."
        ),
    ] = None,
    lang: audit_report.Lang = ENGLISH,
    _json: Json = False,
) -> Answer:
    """Verify regions' bundles, trusting nobody.

    Offline. A BUNDLE that ends in .note is a checkpoint that somebody else kept. Exit code 0: holds,
    10: contradicted, 11: cannot decide.
    """
    kind = str(format or _SUFFIXES.get(output.suffix.lower() if output else ".txt", ""))
    if output is not None:
        checked(output, *([output.suffix.lower()] if format else _SUFFIXES))
        if any(output.exists() and output.samefile(one) for one in (*bundles, receipts, trust, code) if one):
            raise NotReadyError(str(output), got="a file to be checked", expected="another file")
    from fedfsd.audit.document import document, sarif
    from fedfsd.audit.evidence import load
    from fedfsd.audit.text import text
    from fedfsd.audit.verify import verify

    with speaking(lang):
        report = verify(load(bundles, receipts=receipts, trust=trust, code=code, releases=releases), tell)
        found = document(report)
        writers = {
            "text": lambda: text(report),
            "json": lambda: json.dumps(found, indent=1, allow_nan=False),
            "sarif": lambda: json.dumps(sarif(report), indent=1, allow_nan=False),
        }
        written = writers[kind]()
        if output is not None:
            output.write_text(written + "\n", encoding="utf-8")
            written = f"{text(report)}\nwritten: {plain(output)}"
    return Answer(found, written, report.exit_code)


COMMANDS = (
    ("verify", verify, "bundles/*.zip --receipts receipts.json --trust trust.keys"),
    *audit_report.COMMANDS,
    *audit_replay.COMMANDS,
)
