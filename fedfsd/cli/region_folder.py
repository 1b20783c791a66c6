"""What the commands of ``fedfsd region`` share: options, and the one way in which a paper is signed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, plain

if TYPE_CHECKING:
    from fedfsd.ledger.entry import Signed
    from fedfsd.node.node import Node

Region = Annotated[Path, typer.Option("--region", "-r", metavar="FOLDER", help="The region's folder.")]
OfficerKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Sign and add at once, where the officer's key is at hand."),
]
Draft = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where the draft goes; else drafts/ of the region."),
]
HERE = Path()


def finish(
    node: Node,
    paper: Signed,
    *,
    officer_key: Path | None,
    output: Path | None,
    new_key: Path | None = None,
    exit_code: int = 0,
) -> Answer:
    """Sign and add a paper where the key is at hand; else leave a draft, and end with ``exit_code``."""
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
        f"next, where the officer's key is: fedfsd region sign {plain(path.name)} --officer-key FILE\n"
        f"then here: fedfsd region add {plain(signed.name)}{where}"
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


def lines(facts: dict[str, str]) -> str:
    """Label and text, one a line."""
    width = max(map(len, facts))
    return "\n".join(f"{label.ljust(width)}  {plain(text)}" for label, text in facts.items())


def up(epsilon: float) -> str:
    """An epsilon with two decimals, rounded against the region; the small term forgives what floats add.

    >>> up(8.0), up(6.361)
    ('8.00', '6.37')
    """
    return f"{math.ceil(100 * epsilon - 1e-6) / 100:.2f}"


def warned(text: str, warnings: list[str] | tuple[str, ...]) -> str:
    """``text`` with what to mind below it."""
    return "\n".join([text, *(f"warning: {plain(one)}" for one in warnings)])
