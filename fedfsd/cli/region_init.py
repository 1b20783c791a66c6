"""``fedfsd region init``: a new region's folder, key and genesis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, plain
from fedfsd.cli.region_folder import OfficerKey, finish, warned
from fedfsd.errors import UsageError


def init(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to make.")],
    mirror: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A folder on ANOTHER disk for the ledger's second copy."),
    ] = None,
    officer_vkey: Annotated[
        str | None, typer.Option(metavar="VKEY|FILE", help="The data officer's public key.")
    ] = None,
    officer_key: OfficerKey = None,
    previous: Annotated[
        str | None, typer.Option(metavar="ID", help="The region's earlier ledger, which was closed.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Make a region: folder, key, policy, ledger.

    The ledger begins with a genesis signed by the data officer: with --officer-vkey it is drafted for
    the officer's own machine (region sign, then region add), with --officer-key signed here.
    """
    from fedfsd.ledger import strict
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import start

    if (officer_vkey is None) == (officer_key is None):
        raise UsageError(
            "--officer-vkey",
            got="both" if officer_key else "neither it nor --officer-key",
            expected="one of the two",
            hint=f"fedfsd keys new fedfsd/{plain(name)}/officer -o officer.key, on the officer's machine",
        )
    officer = start.officer_of(officer_vkey) if officer_vkey else SigningKey.read(officer_key).verification
    with strict.typed("genesis"):
        node, genesis = start.start(name, output, mirror=mirror, officer=officer, previous=previous)
    answer = finish(node, genesis, officer_key=officer_key, output=None)
    warnings = []
    if start.on_one_disk(node):
        warnings.append(
            f"the ledger and its mirror {node.mirror} lie on one disk: losing it loses both;"
            " move the mirror to another disk and say so in region.toml"
        )
    text = (
        f"{plain(name)}: {plain(output)}\n{answer.text}\n"
        f"to be filled in: roster and identity in {plain(output / 'policy.toml')},"
        f" recipient and purpose in {plain(output / 'region.toml')}"
    )
    document = {"folder": str(output), "mirror": str(node.mirror), **answer.document, "warnings": warnings}
    return replace(answer, document=document, text=warned(text, warnings))
