"""``fedfsd coordinator invite``: invite a region, confirm what it asks, revoke what it was given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json, lines, warned
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, CoordinatorFolder
from fedfsd.errors import UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.coordinator.folder import Coordinator


def invite(
    region: Annotated[str, typer.Argument(metavar="REGION")],
    coordinator: CoordinatorFolder = HERE,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The invitation.")
    ] = None,
    confirm: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The fingerprint that the region's operators told you out of band."),
    ] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Refuse the region's certificates from now on.")
    ] = False,
    _json: Json = False,
) -> Answer:
    """Invite a region, confirm its request, or revoke its certificates.

    First make an invitation for the region's operators. The region's request is answered with a certificate
    once its fingerprint, received out of band, is confirmed here. A new invitation gives a
    region a new pair of key and certificate; certificates of the same key are renewed without one.
    """
    from fedfsd.coordinator.folder import open_coordinator
    from fedfsd.service.owner import private

    if revoke and confirm is not None:
        raise UsageError("--confirm", got="--revoke as well", expected="one of the two")
    hub = open_coordinator(coordinator)
    with private():
        if revoke:
            return _revoked(hub, region)
        if confirm is not None:
            return _confirmed(hub, region, confirm)
        return _invited(hub, region, output or Path(f"invitation-{region}.json"))


def _invited(hub: Coordinator, region: str, output: Path) -> Answer:
    import datetime

    with extra("node"):
        from fedfsd.coordinator import invite
    from fedfsd.ledger.disk import write_whole

    made = invite.invite(hub, region, today=datetime.datetime.now(datetime.UTC).date())
    write_whole(output, (made.model_dump_json(indent=1) + "\n").encode())
    facts = {
        "region": region,
        "invitation": str(output),
        "valid until": made.expires,
        "root fingerprint": made.fingerprint,
    }
    text = (
        f"{lines(facts)}\nsend the file to the region's operators, and tell them the fingerprint out of band;"
        f" there: fedfsd region init {plain(region)} --join {plain(output.name)} --root-fingerprint ..."
    )
    document = {
        "region": region,
        "file": str(output),
        "expires": made.expires,
        "root_fingerprint": made.fingerprint,
    }
    return Answer(document, text)


def _confirmed(hub: Coordinator, region: str, said: str) -> Answer:
    from fedfsd.border import identity

    with extra("node"):
        from fedfsd.coordinator import invite

    made = invite.confirm(hub, region, said=said)
    facts = {
        "region": region,
        "certificate": f"{made.certificate.serial_number:x}",
        "valid for": f"{identity.days_left(made.certificate)} days",
        "node key": str(hub.node_key(region)),
        "officer key": str(hub.officer_key(region)),
    }
    warnings = [f"the region's {role} key is not that of its last certificate" for role in made.changed]
    text = f"{lines(facts)}\nfedfsd region up fetches it there"
    document = {
        "region": region,
        "serial": facts["certificate"],
        "days_left": identity.days_left(made.certificate),
        "node_vkey": facts["node key"],
        "officer_vkey": facts["officer key"],
        "warnings": warnings,
    }
    return Answer(document, warned(text, warnings))


def _revoked(hub: Coordinator, region: str) -> Answer:
    with extra("node"):
        from fedfsd.coordinator import invite

    count = invite.revoke(hub, region)
    text = f"{plain(region)}: {count} certificates revoked; its calls are refused from the next one on"
    return Answer({"region": region, "revoked": count}, text)
