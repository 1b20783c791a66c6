"""``fedfsd region sign`` and ``add``: documents that the data officer signs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, lines
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.ledger.entry import Signed
    from fedfsd.node.node import Node

OfficerKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Sign and add at once with the officer's key, if it is on this machine."
    ),
]
Draft = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="The draft; by default in drafts/ of the region."),
]


def sign(
    draft: Annotated[Path, typer.Argument(metavar="DRAFT")],
    officer_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The data officer's key; without it the draft is only shown."),
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The officer's new key, if the draft names one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The signed document.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Show a draft and, given the key, sign it.

    For the officer's machine: needs the draft, the key and the base install, no network and no region.
    """
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import explain
    from fedfsd.node import paper as papers

    paper = papers.read(draft)
    facts = explain.facts(paper)
    if officer_key is None:
        text = f"{lines(facts)}\nnot signed: --officer-key FILE signs it"
        return Answer(document(paper, facts), text)
    new = SigningKey.read(new_key) if new_key else None
    signed = papers.sign(paper, SigningKey.read(officer_key), new=new)
    path = output or papers.signed_path(draft)
    papers.write(signed, path)
    text = f"{lines(facts)}\nsigned: {plain(path)}\nnext, on the node: fedfsd region add {plain(path.name)}"
    return Answer(document(signed, facts, file=path), text)


def add(
    signed: Annotated[Path, typer.Argument(metavar="SIGNED")],
    region: RegionFolder = HERE,
    _json: Json = False,
) -> Answer:
    """Add a signed document to the ledger.

    SIGNED is a genesis, grant, approval, plan, recovery, rotation or close that the officer signed.
    """
    from fedfsd.node import adding, explain
    from fedfsd.node import paper as papers
    from fedfsd.node.node import open_node

    paper = papers.read(signed)
    facts = explain.facts(paper)
    seq = adding.add(open_node(region), paper)
    return Answer(document(paper, facts, entry=seq), f"{lines(facts)}\nadded as entry {seq}")


def finish(
    node: Node,
    paper: Signed,
    *,
    officer_key: Path | None,
    output: Path | None,
    new_key: Path | None = None,
    exit_code: int = 0,
) -> Answer:
    """Sign and add a document if the key is given; else write a draft, and end with ``exit_code``."""
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import adding, explain
    from fedfsd.node import paper as papers

    facts = explain.facts(paper)
    if officer_key is not None:
        new = SigningKey.read(new_key) if new_key else None
        seq = adding.add(node, papers.sign(paper, SigningKey.read(officer_key), new=new))
        return Answer(document(paper, facts, entry=seq), f"{lines(facts)}\nadded as entry {seq}")
    path = output or node.drafts / papers.name(paper)
    papers.write(paper, path)
    signed = papers.signed_path(path)
    where = "" if node.folder == HERE else f" --region {plain(node.folder)}"
    text = (
        f"{lines(facts)}\n"
        f"drafted: {plain(path)}\n"
        f"next, on the officer's machine: fedfsd region sign {plain(path.name)} --officer-key FILE\n"
        f"then on this machine: fedfsd region add {plain(signed.name)}{where}"
    )
    return Answer(document(paper, facts, file=path), text, exit_code)


def document(
    paper: Signed, facts: dict[str, str], *, file: Path | None = None, entry: int | None = None
) -> dict[str, Any]:
    """A paper as ``--json`` prints it: drafted or signed in ``file``, or added as ``entry``."""
    return {
        "type": paper.type,
        "entry": entry,
        "file": None if file is None else str(file),
        "facts": facts,
        "content": paper.model_dump(mode="json", by_alias=True),
    }
