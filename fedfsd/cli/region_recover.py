"""``fedfsd region recover``, ``rotate`` and ``close``: after a loss, a new key, the end."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.cli.region_sign import Draft, OfficerKey, finish
from fedfsd.errors import UsageError
from fedfsd.plain_text import plain


class Reach(StrEnum):
    """How far the officer knows what is lost."""

    rounds = "rounds"
    unknown = "unknown"


def recover(
    region: RegionFolder = HERE,
    mirror: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Only this mirror is left: rebuild the folder from it."),
    ] = None,
    new_mirror: Annotated[
        bool,
        typer.Option(
            "--new-mirror", help="The mirror is lost; the ledger itself was never restored from a backup."
        ),
    ] = False,
    from_backup: Annotated[
        bool,
        typer.Option(
            "--from-backup", help="Only a backup is left: continue, lost entries charged at the worst case."
        ),
    ] = False,
    reach: Annotated[
        Reach, typer.Option(help="What the backup may lack: rounds of plans it contains, or unknown.")
    ] = Reach.unknown,
    lost_size: Annotated[
        int | None, typer.Option(metavar="ENTRIES", min=0, help="The largest ledger size anybody has seen.")
    ] = None,
    officer_key: OfficerKey = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Recover a lost or outdated ledger.

    Without options the ledger is rebuilt from its mirror: nothing is lost and nothing is charged. A backup
    can continue only with an entry, signed by the officer, that charges lost entries at the worst case.
    """
    from fedfsd.node import recover
    from fedfsd.node.node import open_node

    chosen = [word for word, given in _modes(mirror, new_mirror, from_backup) if given]
    if len(chosen) > 1:
        raise UsageError("fedfsd region recover", got=" and ".join(chosen), expected="one of them")
    if mirror is not None:
        node, size = recover.from_mirror_alone(region, mirror)
        text = f"{plain(region)}: made anew from {plain(mirror)}, {size} entries"
        text += "\nits key, run keys and salts are lost; next: fedfsd region rotate"
        return Answer({"mode": "mirror-alone", "folder": str(node.folder), "entries": size}, text)
    node = open_node(region)
    if new_mirror:
        size = recover.new_mirror(node)
        return Answer({"mode": "new-mirror", "entries": size}, f"{plain(node.mirror)}: {size} entries")
    if from_backup:
        made = recover.from_backup(node, reach=reach.value, lost_size=lost_size)
        answer = finish(node, made, officer_key=officer_key, output=output)
        return replace(answer, document={"mode": "from-backup", **answer.document})
    back = recover.from_mirror(node)
    if back is None:
        return Answer(
            {"mode": "mirror", "entries": 0}, "ledger and mirror agree: there is nothing to bring back"
        )
    text = f"{back} entries brought back from {plain(node.mirror)}; the old file is kept beside the ledger"
    return Answer({"mode": "mirror", "entries": back}, text)


def rotate(
    region: RegionFolder = HERE,
    officer_vkey: Annotated[
        str | None, typer.Option(metavar="VKEY|FILE", help="Replace the officer's key with this one instead.")
    ] = None,
    officer_key: OfficerKey = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The officer's new private key, to sign at once.")
    ] = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Draft a new key for the node or the officer.

    The node's new key is made here; a lost key can be replaced too. The officer signs in both cases.
    """
    from fedfsd.node import new_region, recover
    from fedfsd.node.node import open_node

    node = open_node(region)
    officer = new_region.officer_of(officer_vkey) if officer_vkey else None
    made = recover.rotate(node, officer=officer)
    return finish(node, made, officer_key=officer_key, new_key=new_key, output=output)


def close(
    reason: Annotated[str, typer.Argument(metavar="REASON")],
    region: RegionFolder = HERE,
    officer_key: OfficerKey = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Draft the closing entry of the ledger.

    No entry can follow; a later ledger of the region names it (region init --previous).
    """
    from fedfsd.node import recover
    from fedfsd.node.node import open_node

    node = open_node(region)
    return finish(node, recover.close(node, reason), officer_key=officer_key, output=output)


def _modes(mirror: Path | None, new_mirror: bool, from_backup: bool) -> list[tuple[str, bool]]:
    return [("--mirror", mirror is not None), ("--new-mirror", new_mirror), ("--from-backup", from_backup)]
