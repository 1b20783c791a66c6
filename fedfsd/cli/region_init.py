"""``fedfsd region init``: a new region's folder, key and genesis, and its way into a federation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, lines, warned
from fedfsd.cli.extra import extra
from fedfsd.cli.region_sign import OfficerKey, finish
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.border.invitation import Invitation
    from fedfsd.ledger.key import VerificationKey
    from fedfsd.node.node import Node


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
    join: Annotated[
        Path | None, typer.Option(metavar="INVITATION", help="Join the federation that invited this region.")
    ] = None,
    root_fingerprint: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Of its root certificate, as its operators told you out of band."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An HTTP proxy to the coordinator, http://host:port, if needed."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The tables that the runner trains on.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The runner's folder; by default train/ of the region."),
    ] = None,
    _json: Json = False,
) -> Answer:
    """Make a region: folder, key, policy, ledger.

    The ledger begins with a genesis signed by the data officer: with --officer-vkey it is drafted for
    the officer's own machine (region sign, then region add), with --officer-key signed here.
    --join asks the coordinator for a certificate, and for an existing region asks again or renews it.
    """
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import new_region
    from fedfsd.node.node import SETTINGS, open_node

    mine = None if join is None else _invitation(join, root_fingerprint)
    officer: VerificationKey | None = None
    if officer_key is not None:
        officer = SigningKey.read(officer_key).verification
    elif officer_vkey is not None:
        officer = new_region.officer_of(officer_vkey)
    if mine is not None and (output / SETTINGS).exists():
        _demand_proxy(open_node(output), proxy)
        if data is not None:
            new_region.start_train(open_node(output), train or output / "train", data=data)
        return _join(open_node(output), mine, officer, told=root_fingerprint is not None)
    if officer is None or (officer_vkey is not None and officer_key is not None):
        raise UsageError(
            "--officer-vkey",
            got="both" if officer else "neither it nor --officer-key",
            expected="one of the two",
            hint=f"fedfsd keys new fedfsd/{plain(name)}/officer -o officer.key, on the officer's machine",
        )
    if mine is not None:
        from fedfsd.node import join as joining

        joining.demand_current(mine)
    node, answer = _make(name, output, mirror, officer, officer_key, previous, mine, proxy or "")
    if data is not None:
        new_region.start_train(node, train or output / "train", data=data)
    if mine is None:
        return answer
    joined = _join(node, mine, officer, told=root_fingerprint is not None)
    return Answer({**answer.document, **joined.document}, f"{answer.text}\n\n{joined.text}", joined.exit_code)


def _invitation(path: Path, root_fingerprint: str | None) -> Invitation:
    """The invitation, if its root has the expected fingerprint."""
    with extra("node"):
        from fedfsd.border import invitation
        from fedfsd.node import join

    mine = invitation.read(path)
    join.demand_fingerprint(mine, root_fingerprint)
    return mine


def _demand_proxy(node: Node, proxy: str | None) -> None:
    """An existing region's settings say how it goes out."""
    if proxy is not None and proxy != node.settings.border.proxy:
        raise UsageError(
            "--proxy",
            got="another proxy than the region's",
            expected="that of region.toml, or none",
            hint=f"set border.proxy in {plain(node.folder)}/region.toml",
        )


def _make(
    name: str,
    output: Path,
    mirror: Path | None,
    officer: VerificationKey,
    officer_key: Path | None,
    previous: str | None,
    mine: Invitation | None,
    proxy: str,
) -> tuple[Node, Answer]:
    """The region's folder, and what is to be done next."""
    from fedfsd.ledger import strict
    from fedfsd.node import new_region
    from fedfsd.service import address

    recipient = "" if mine is None else mine.coordinator_key.name
    address.proxy(proxy)
    with strict.typed("genesis"):
        node, genesis = new_region.make(
            name,
            output,
            mirror=mirror,
            officer=officer,
            previous=previous,
            recipient=recipient,
            proxy=proxy,
        )
    answer = finish(node, genesis, officer_key=officer_key, output=None)
    warnings = []
    if new_region.on_one_disk(node):
        warnings.append(
            f"the ledger and its mirror {node.mirror} are on one disk and would be lost together;"
            " move the mirror to another disk and set mirror in region.toml"
        )
    text = (
        f"{plain(name)}: {plain(output)}\n{answer.text}\n"
        f"to be filled in: roster and identity in {plain(output / 'policy.toml')},"
        f" {'purpose' if recipient else 'recipient and purpose'} in {plain(output / 'region.toml')}"
    )
    document = {"folder": str(output), "mirror": str(node.mirror), **answer.document, "warnings": warnings}
    return node, replace(answer, document=document, text=warned(text, warnings))


def _join(node: Node, mine: Invitation, officer: VerificationKey | None, *, told: bool) -> Answer:
    """Request the certificate; the fingerprints that the operators of both sides have to compare."""
    from fedfsd.node import join

    request = join.prepare(node, mine, officer=officer)
    problem = None
    try:
        joined = join.fetch_certificate(node)
    except NotReadyError as error:  # all is made here; only the asking has to be done again
        joined, problem = False, str(error)
    facts = {
        "federation": mine.federation,
        "coordinator": mine.coordinator,
        "root fingerprint": mine.fingerprint,
        "request fingerprint": request.fingerprint,
        "ledger fingerprint": request.ledger_fingerprint,
    }
    if joined:
        left = join.peer(node).days_left
        facts["certificate"] = f"joined; valid for {left} days"
        following = "next: fedfsd region doctor, then fedfsd region up"
    else:
        facts["certificate"] = (
            "not sent yet" if problem else "requested; waiting for the coordinator's operators"
        )
        following = (
            "tell the coordinator's operators both fingerprints out of band; when they have confirmed them,"
            " run the same command with --join again to fetch the certificate"
        )
    warnings = [] if problem is None else [problem]
    if not told:
        warnings.append("compare the root fingerprint out of band with the coordinator's operators")
    document: dict[str, Any] = {
        "federation": mine.federation,
        "coordinator": mine.coordinator,
        "root_fingerprint": mine.fingerprint,
        "request_fingerprint": request.fingerprint,
        "ledger_fingerprint": request.ledger_fingerprint,
        "joined": joined,
        "join_warnings": warnings,
    }
    return Answer(document, warned(f"{lines(facts)}\n{following}", warnings))
