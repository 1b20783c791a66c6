"""``fedfsd --version``: the program, the hash that ledgers hold of it, and what it computes with."""

from __future__ import annotations

from importlib import metadata

from fedfsd.cli.answer import Answer
from fedfsd.plain_text import plain

LIBRARIES = ("torch", "opacus", "flwr", "dp-accounting")
"""What training and accounting depend on; asked for by their metadata, since importing them takes seconds."""


def version() -> Answer:
    """Versions and code hash; a library that is not installed has none."""
    from fedfsd.ledger import digest

    libraries = {name: _installed(name) for name in LIBRARIES}
    document = {"version": digest.version(), "code": digest.code(), "libraries": libraries}
    told = [f"{name} {plain(found or 'not installed')}" for name, found in libraries.items()]
    return Answer(
        document, f"fedfsd {plain(document['version'])}\ncode {document['code']}\n{', '.join(told)}"
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
