"""A report as one self-contained page: no script, nothing fetched, all quoted text escaped."""

from __future__ import annotations

from fedfsd.audit.text import SECTIONS, number, tables
from fedfsd.audit.verdict import Report
from fedfsd.ledger import digest

_COLOURS = {"contradicted": "contradicted", "cannot decide": "cannot"}


def page(report: Report) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("fedfsd.audit", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    sections = [
        (title, _COLOURS.get(title, "not"), report.found(*kinds)) for title, kinds in SECTIONS.items()
    ]
    return environment.get_template("verify.html").render(
        report=report,
        parts=report.parts,
        tables=list(tables(report)),
        sections=[section for section in sections if section[2]],
        claims={one.name: one.claim for part in report.parts for one in part.answers},
        more=report.more,
        number=number,
        version=digest.version(),
    )
