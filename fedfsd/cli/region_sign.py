"""``fedfsd region sign`` and ``add``: documents that the data officer signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    drafts: Annotated[list[Path], typer.Argument(metavar="DRAFT...")],
    officer_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The data officer's key; without it drafts are only shown."),
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The officer's new key, if the draft names one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="One file for all that is signed.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Show drafts and, given the key, sign them.

    For the officer's machine: needs the drafts, the key and the base install, no network and no region. A
    signed document lies beside its draft, or all of them in one file (-o). If one cannot be signed, none is.
    """
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import explain
    from fedfsd.node import paper as papers

    read = {draft: papers.read(draft) for draft in drafts}
    shown = "\n\n".join(lines(explain.facts(one)) for found in read.values() for one in found)
    if officer_key is None:
        every = [document(one, explain.facts(one)) for found in read.values() for one in found]
        return Answer({"papers": every}, f"{shown}\nnot signed: --officer-key FILE signs it")
    officer, new = SigningKey.read(officer_key), SigningKey.read(new_key) if new_key else None
    made = {draft: [papers.sign(one, officer, new=new) for one in found] for draft, found in read.items()}
    files = {output or papers.signed_path(draft): found for draft, found in made.items()}
    if output is not None:
        files = {output: [one for found in made.values() for one in found]}
    for path, found in files.items():
        papers.write(found, path)
    every = [document(one, explain.facts(one), file=path) for path, found in files.items() for one in found]
    names = " ".join(plain(path.name) for path in files)
    signed = "\n".join(f"signed: {plain(path)}" for path in files)
    return Answer({"papers": every}, f"{shown}\n{signed}\nnext, on the node: fedfsd region add {names}")


def add(
    signed: Annotated[list[Path], typer.Argument(metavar="SIGNED...")],
    region: RegionFolder = HERE,
    _json: Json = False,
) -> Answer:
    """Add signed documents to the ledger.

    SIGNED has a genesis, grant, approval, plan, recovery, rotation or close that the officer signed, or
    several of them. A genesis or grant that is in the ledger already is left as it is.
    """
    from fedfsd.node import adding, explain
    from fedfsd.node import paper as papers
    from fedfsd.node.node import open_node

    read = [one for path in signed for one in papers.read(path)]
    facts = [explain.facts(one) for one in read]
    added = adding.add(open_node(region), read)
    every = [document(one, fact, entry=seq) for one, fact, seq in zip(read, facts, added, strict=True)]
    text = "\n\n".join(map(lines, facts))
    return Answer({"papers": every}, f"{text}\nin the ledger as {listed(added)}")


def finish(
    node: Node,
    paper: Signed,
    *,
    officer_key: Path | None,
    output: Path | None,
    new_key: Path | None = None,
    exit_code: int = 0,
) -> Answer:
    """``finish_all`` of one document, which is then the answer's."""
    answer = finish_all(
        node, [paper], officer_key=officer_key, output=output, new_key=new_key, exit_code=exit_code
    )
    return replace(answer, document=answer.document["papers"][0])


def finish_all(
    node: Node,
    drafts: Sequence[Signed],
    *,
    officer_key: Path | None,
    output: Path | None,
    new_key: Path | None = None,
    exit_code: int = 0,
) -> Answer:
    """Sign and add documents if the key is given; else write one draft, and end with ``exit_code``."""
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import adding, explain
    from fedfsd.node import paper as papers

    facts = [explain.facts(one) for one in drafts]
    text = "\n\n".join(map(lines, facts))
    if officer_key is not None:
        new, officer = SigningKey.read(new_key) if new_key else None, SigningKey.read(officer_key)
        added = adding.add(node, [papers.sign(one, officer, new=new) for one in drafts])
        every = [document(one, fact, entry=seq) for one, fact, seq in zip(drafts, facts, added, strict=True)]
        return Answer({"papers": every}, f"{text}\nadded as {listed(added)}")
    path = output or node.drafts / papers.name(drafts)
    papers.write(drafts, path)
    signed = papers.signed_path(path)
    where = "" if node.folder == HERE else f" --region {plain(node.folder)}"
    text += (
        f"\ndrafted: {plain(path)}\n"
        f"next, on the officer's machine: fedfsd region sign {plain(path.name)} --officer-key FILE\n"
        f"then on this machine: fedfsd region add {plain(signed.name)}{where}"
    )
    every = [document(one, fact, file=path) for one, fact in zip(drafts, facts, strict=True)]
    return Answer({"papers": every}, text, exit_code)


def listed(entries: Sequence[int]) -> str:
    """Numbers of entries as a person reads them.

    >>> listed([3]), listed([0, 1])
    ('entry 3', 'entries 0 and 1')
    """
    *first, last = map(str, entries)
    return f"entries {', '.join(first)} and {last}" if first else f"entry {last}"


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
