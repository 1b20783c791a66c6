"""``fedfsd serve``: a run, a region or evidence in a browser, read-only."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.audit_report import (
    Canaries,
    Code,
    Declared,
    Lang,
    Receipts,
    Releases,
    Trust,
    VehiclesCross,
)
from fedfsd.cli.extra import extra
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.language import ENGLISH, speaking

if TYPE_CHECKING:
    from fedfsd.cli.page.site import Address

PORT = 8765


def serve(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A run folder, a region's folder, a bundle, or bundles' folder."),
    ],
    receipts: Receipts = None,
    trust: Trust = None,
    code: Code = None,
    declaration: Declared = None,
    vehicles_cross: VehiclesCross = False,
    releases: Releases = None,
    canaries: Canaries = None,
    lang: Lang = ENGLISH,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others than loopback let others read.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = PORT,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A name under which a browser may ask, beside localhost; repeatable."
        ),
    ] = None,
    _json: Json = False,
) -> Answer:
    """Show a run, a region or evidence in a browser.

    Pages can only be read: nothing is approved, changed or run from them. They load nothing from elsewhere
    and have no scripts. Ends with Ctrl-C.
    """
    with extra("serve"):
        from fedfsd.cli.page.listen import listen, opened
        from fedfsd.cli.page.site import site
    with speaking(lang):  # refused before anything is read, if there is no such language
        addresses, what = pages(
            path,
            receipts=receipts,
            trust=trust,
            code=code,
            declared=tuple(declaration or ()),
            vehicles_cross=vehicles_cross,
            releases=releases,
            canaries=tuple(canaries or ()),
        )
    names = (f"[{host}]" if ":" in host else host, *(name or ()))
    with opened(host, port) as socket:
        if what == "evidence":  # it is verified now, so that nobody waits for a first page
            with speaking(lang):
                addresses[0].make()
        number = socket.getsockname()[1]
        url = f"http://{names[0]}:{number}/"
        if not ip_address(socket.getsockname()[0]).is_loopback:
            print(f"warning: whoever reaches {host} can read these pages", file=sys.stderr)
        print(f"{what}: {url} (Ctrl-C ends)", file=sys.stderr, flush=True)
        listen(site(addresses, hosts=names, language=lang), socket)
    return Answer({"served": str(path), "url": url}, "")


def pages(path: Path, **given: Any) -> tuple[list[Address], str]:
    """The pages of a path, and what it is.

    Args:
        given: files that belong to evidence, beside those found there, by the names of ``evidence.Files``.

    Raises:
        NotReadyError: nothing that has pages.
    """
    with extra("serve"):
        from fedfsd.cli.page import evidence
    named = {name: value for name, value in given.items() if value}

    def find() -> evidence.Files:
        found = evidence.files_in(path)
        if found is None:
            raise NotReadyError(str(path), got="no evidence any more", expected="bundles")
        return replace(found, **named, beside=found.beside and "trust" not in named)

    if (path / "plan.json").is_file():
        with extra("simulation"):
            from fedfsd.cli.page import run
        return [*run.addresses(path), *evidence.addresses(find, prefix="/audit")], "run"
    if (path / "region.toml").is_file():
        if named:
            raise UsageError(
                "--" + next(iter(named)).replace("_", "-").replace("declared", "declaration"),
                got="a region's folder, which is no evidence",
                expected="a bundle: fedfsd region bundle writes one",
            )
        with extra("node"):
            from fedfsd.cli.page import region
        return region.addresses(path), "region"
    if evidence.files_in(path) is not None:
        return evidence.addresses(find), "evidence"
    raise NotReadyError(
        str(path),
        got="nothing that has pages",
        expected="a run folder (plan.json), a region's folder (region.toml), a bundle or a folder of bundles",
    )
