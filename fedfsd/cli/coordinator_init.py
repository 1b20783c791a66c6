"""``fedfsd coordinator init``: a new federation's folder, keys and root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, lines
from fedfsd.plain_text import plain


def init(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to make.")],
    host: Annotated[
        str, typer.Option(metavar="NAME", help="The name or address under which regions reach this machine.")
    ] = "127.0.0.1",
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The address to listen on; by default that of --host."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port for regions; 9443 if left out.")] = None,
    join_port: Annotated[
        int | None, typer.Option(help="Port for regions that ask to join; 9444 if left out.")
    ] = None,
    public_port: Annotated[
        int | None, typer.Option(help="By which regions reach --port, if a router translates it.")
    ] = None,
    public_join_port: Annotated[int | None, typer.Option(help="The same for --join-port.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port for Prometheus on loopback; none if left out.")
    ] = None,
    flower_port: Annotated[
        int | None, typer.Option(help="The engine's first port on loopback; 9091 if left out.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Make a federation: folder, keys and root certificate.

    Tell the operators of every region the root's fingerprint out of band, for example by phone. The two keys
    belong in every auditor's trust file.
    """
    from fedfsd.border import identity
    from fedfsd.coordinator import new_coordinator

    chosen = {
        "port": port,
        "join_port": join_port,
        "public_port": public_port,
        "public_join_port": public_join_port,
        "metrics_port": metrics_port,
        "flower_port": flower_port,
    }
    made = new_coordinator.make(
        new_coordinator.settings(name, host=host, listen=listen or host, **chosen), output
    )
    root = identity.read(made.root.read_bytes())
    facts = {
        "federation": name,
        "folder": str(output),
        "root fingerprint": identity.fingerprint(root),
        "coordinator key": str(made.key.verification),
        "witness key": str(made.key.cosigner),
    }
    where = f" -C {plain(output)}"
    text = (
        f"{lines(facts)}\nnext: fedfsd coordinator up{where}, and for each region"
        f" fedfsd coordinator invite REGION{where}"
    )
    document = {
        "federation": name,
        "folder": str(output),
        "root_fingerprint": facts["root fingerprint"],
        "coordinator_vkey": facts["coordinator key"],
        "witness_vkey": facts["witness key"],
        "trust_lines": [f"coordinator {made.key.verification}", f"witness {made.key.cosigner}"],
    }
    return Answer(document, text)
