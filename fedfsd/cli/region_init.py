"""``fedfsd region init``: a new region's folder, key and genesis, and its way into a federation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, lines, warned
from fedfsd.cli.extra import extra
from fedfsd.cli.region_sign import OfficerKey, finish_all
from fedfsd.errors import FedfsdError, NotReadyError, UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.border.invitation import Invitation
    from fedfsd.ledger.entry import Signed
    from fedfsd.ledger.key import VerificationKey
    from fedfsd.node.grant import Wish
    from fedfsd.node.new_region import Declared
    from fedfsd.node.node import Node


class Identity(StrEnum):
    """What a vehicle key stands for: one car, or one car in one drive."""

    physical = "physical"
    recording = "recording"


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
    roster: Annotated[
        int | None, typer.Option(min=1, help="N of fedfsd data check, for policy.toml.")
    ] = None,
    identity: Annotated[
        Identity | None, typer.Option(help="What a vehicle key stands for, for policy.toml.")
    ] = None,
    purpose: Annotated[
        str, typer.Option(metavar="TEXT", help="What updates are used for, for region.toml.")
    ] = "",
    data_set: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Name of the data set, for a first grant.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Its lifetime limit; other options: fedfsd region grant, later.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Below 1 / roster.")] = None,
    _json: Json = False,
) -> Answer:
    """Make a region: folder, key, policy, ledger, budget, and its way into a federation.

    The ledger begins with a genesis signed by the data officer, and with --data-set, --epsilon and --delta
    their first grant: with --officer-vkey one draft of both goes to the officer's own machine (region sign,
    then region add), with --officer-key they are signed here. --join asks the coordinator for a certificate,
    and for an existing region with a new invitation, for a new one.
    """
    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import new_region
    from fedfsd.node.node import SETTINGS, open_node
    from fedfsd.service import address

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
    address.proxy(proxy or "")
    declared = new_region.Declared(
        roster=roster,
        identity=None if identity is None else identity.value,
        recipient="" if mine is None else mine.coordinator_key.name,
        purpose=purpose,
        proxy=proxy or "",
    )
    wish = _wish(data_set, epsilon, delta, roster)
    node, answer = _make(name, output, mirror, officer, officer_key, previous, declared, wish)
    if data is not None:
        new_region.start_train(node, train or output / "train", data=data)
    if mine is None:
        return answer
    joined = _join(node, mine, officer, told=root_fingerprint is not None)
    return Answer({**answer.document, **joined.document}, f"{answer.text}\n\n{joined.text}", joined.exit_code)


def _wish(
    data_set: str | None, epsilon: float | None, delta: float | None, roster: int | None
) -> Wish | None:
    """The first grant, if one is asked for; refused here, before anything is made."""
    from fedfsd.node import grant

    given = (data_set, epsilon, delta)
    if given == (None, None, None):
        return None
    if data_set is None or epsilon is None or delta is None:
        missing = next(
            word
            for word, one in zip(("--data-set", "--epsilon", "--delta"), given, strict=True)
            if one is None
        )
        raise UsageError(
            missing,
            got="nothing",
            expected="--data-set, --epsilon and --delta together, for a first grant",
            hint="or none of them, and fedfsd region grant later",
        )
    wish = grant.Wish(data_set=data_set, epsilon=epsilon, delta=delta)
    grant.demand_delta(wish, roster)
    return wish


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
    declared: Declared,
    wish: Wish | None,
) -> tuple[Node, Answer]:
    """The region's folder, and what is to be done next."""
    from fedfsd.ledger import strict
    from fedfsd.ledger.state import State
    from fedfsd.node import grant, new_region

    with strict.typed("genesis"):
        node, genesis = new_region.make(
            name, output, mirror=mirror, officer=officer, previous=previous, declared=declared
        )
    drafts: list[Signed] = [genesis]
    if wish is not None:
        try:
            state, policy = State.drafted(genesis), node.policy()
            drafts.append(grant.make(state, wish, policy=policy, salts=node.salts, data=None))
        except FedfsdError:  # nothing is left of a beginning that is refused
            shutil.rmtree(node.folder)
            raise
    answer = finish_all(node, drafts, officer_key=officer_key, output=None)
    warnings = []
    if new_region.on_one_disk(node):
        warnings.append(
            f"the ledger and its mirror {node.mirror} are on one disk and would be lost together;"
            " move the mirror to another disk and set mirror in region.toml"
        )
    text = f"{plain(name)}: {plain(output)}\n{answer.text}"
    in_policy, in_settings = plain(output / "policy.toml"), plain(output / "region.toml")
    if missing := [
        f"{key} in {file}"
        for key, value, file in (
            ("roster", declared.roster, in_policy),
            ("identity", declared.identity, in_policy),
            ("recipient", declared.recipient, in_settings),
            ("purpose", declared.purpose, in_settings),
        )
        if not value
    ]:
        text += f"\nto be filled in: {', '.join(missing)}"
    document = {
        "folder": str(output),
        "mirror": str(node.mirror),
        "file": answer.document["papers"][0]["file"],
        **answer.document,
        "warnings": warnings,
    }
    return node, replace(answer, document=document, text=warned(text, warnings))


def _join(node: Node, mine: Invitation, officer: VerificationKey | None, *, told: bool) -> Answer:
    """Request the certificate; the fingerprint that the operators of both sides have to compare."""
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
        "fingerprint": request.fingerprint,
    }
    up = f"fedfsd region up --region {plain(node.folder)}"
    if joined:
        left = join.peer(node).days_left
        facts["certificate"] = f"joined; valid for {left} days"
        following = f"next: {up}"
    else:
        facts["certificate"] = (
            "not sent yet" if problem else "requested; waiting for the coordinator's operators"
        )
        following = (
            f"tell the coordinator's operators the fingerprint out of band; {up}"
            f"{' asks again and' if problem else ''} fetches the certificate when they have confirmed it"
        )
    warnings = [] if problem is None else [problem]
    if not told:
        warnings.append("compare the root fingerprint out of band with the coordinator's operators")
    document: dict[str, Any] = {
        "federation": mine.federation,
        "coordinator": mine.coordinator,
        "root_fingerprint": mine.fingerprint,
        "fingerprint": request.fingerprint,
        "joined": joined,
        "join_warnings": warnings,
    }
    return Answer(document, warned(f"{lines(facts)}\n{following}", warnings))
