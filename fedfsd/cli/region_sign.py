"""``fedfsd region sign`` and ``add``: what the data officer signs, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, plain
from fedfsd.cli.region_folder import HERE, Region, document, lines


def sign(
    draft: Annotated[Path, typer.Argument(metavar="DRAFT")],
    officer_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The data officer's key; without it: only look.")
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The officer's new key, where the draft names one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where the signed paper goes.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Read a draft and, with the key, sign it.

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
    region: Region = HERE,
    _json: Json = False,
) -> Answer:
    """Add a signed paper to the ledger.

    SIGNED is a genesis, grant, approval, plan, recovery, rotation or close that the officer signed.
    """
    from fedfsd.node import adding, explain
    from fedfsd.node import paper as papers
    from fedfsd.node.node import open_node

    paper = papers.read(signed)
    facts = explain.facts(paper)
    seq = adding.add(open_node(region), paper)
    return Answer(document(paper, facts, entry=seq), f"{lines(facts)}\nadded as entry {seq}")
