"""An audit report as Markdown and as one self-contained page: no script, nothing fetched.

Both are templates over the report's document. On the page every value is escaped by Jinja, in Markdown
by ``words.markdown``, so that no text from a bundle can become markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from fedfsd.audit.empirical import BOUNDS
from fedfsd.audit.explained import CHECKS
from fedfsd.audit.finding import Kind, said
from fedfsd.audit.report import merged
from fedfsd.audit.text import number
from fedfsd.audit.timeline import drawing
from fedfsd.audit.words import chance, markdown, percent, word
from fedfsd.language import say, spoken

_LONG = 40
SHOWN = 200
"""Releases and plans that a page lists; the JSON document has them all."""


def page(
    document: Mapping[str, Any],
    *,
    linked: Callable[[str, str | None], Markup] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The report as HTML.

    Args:
        linked: makes links of what a finding says of a region's entries; text stays text without.
        notes: what a reader must know before all else.
    """
    return _rendered("report.html", document, linked=linked or (lambda text, _: escape(text)), notes=notes)


def text(document: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    return _rendered("report.md", document)


def _rendered(template: str, document: Mapping[str, Any], **more: Any) -> str:
    from jinja2 import Environment, PackageLoader

    html = template.endswith(".html")
    environment = Environment(
        loader=PackageLoader("fedfsd.audit", "."),
        autoescape=html,
        finalize=None if html else markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "chance": chance,
        "count": "{:,}".format,
        "spaced": spaced,
        "percent": percent,
        "say": say,
    }
    environment.globals |= {"_": say, "placed": said}
    return environment.get_template(template).render(
        report=document,
        title=title(document),
        regions=document["regions"],
        joint=document["joint"],
        fields=merged(document["regions"]),
        checks=_checks(document["verification"]),
        attacked=any(plan["true_positives"] for one in document["regions"] for plan in one["plans"]),
        drawing=drawing,
        bounds=BOUNDS,
        bounded=any(one["beside_claims"] for one in document["regions"]),
        meanings=CHECKS,
        language=spoken(),
        findings=_findings(document["verification"]),
        **more,
        shown=SHOWN,
    )


def spaced(text: str) -> Markup:
    """Text in which hashes and keys are set as code; everything in it is escaped."""
    words = (Markup("<code>{}</code>").format(one) if len(one) >= _LONG else one for one in text.split(" "))
    return Markup(" ").join(words)


def title(document: Mapping[str, Any]) -> str:
    """The report in one line of plain words."""
    joint, names = document["joint"], [one["region"] for one in document["regions"]]
    who = names[0] if len(names) == 1 else say("{number} regions", number=word(len(names)))
    if document["outcome"] == "contradicted":
        wrong = [one["region"] for one in document["regions"] if one["outcome"] == "contradicted"]
        return (
            say("The evidence of {regions} contradicts itself", regions=", ".join(wrong))
            if wrong
            else say("The evidence contradicts itself")
        )
    if not joint["guarantee"]:
        return say("{who}: no guarantee", who=who)
    granted, charged = number(joint["epsilon_grant"]), number(joint["epsilon_lifetime"])
    part = (
        say("all of it charged")
        if charged == granted
        else say("of which {charged} is charged", charged=charged)
    )
    return say("{who}: epsilon at most {granted}, {part}", who=who, granted=granted, part=part)


def key_note(name: str) -> str:
    """What to say of keys that came with the evidence."""
    return say(
        "The keys are from {file}, which lies beside the evidence: they show whose it is only if you "
        "obtained them out of band.",
        file=name,
    )


def _findings(verification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every finding that was kept, with whose it is and by which check; what decides, first."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in verification["parts"]:
        who = part["region"] or part["source"]
        for one in part["checks"]:
            for finding in one["findings"]:
                # What names an entry is about one ledger; the rest may be true of several.
                entry = f"{finding['place']} {finding['text']}"
                mine = part["source"] if "entry" in entry else None
                key = (one["name"], *finding.values(), mine)
                key = tuple(map(str, key))
                row = {"who": [], "region": part["region"], "check": one["name"], **finding}
                rows.setdefault(key, row)["who"].append(who)
    order = [str(kind) for kind in Kind]
    return sorted(rows.values(), key=lambda row: order.index(row["kind"]))


def _checks(verification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each check with its outcome for every file, in the order in which they first ran."""
    found: dict[str, dict[str, Any]] = {}
    for part in verification["parts"]:
        for one in part["checks"]:
            row = found.setdefault(one["name"], {"name": one["name"], "claim": one["claim"], "outcomes": []})
            row["outcomes"].append((part["region"] or part["source"], one["outcome"]))
    return list(found.values())
