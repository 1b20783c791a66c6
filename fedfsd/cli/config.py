"""``fedfsd config``: is this file valid, and which keys may it have?"""

from __future__ import annotations

import json
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain

Experiment = Annotated[Path, typer.Argument(metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key; repeatable.")
]


class KindOption(StrEnum):
    """The files that have a schema."""

    experiment = "experiment"
    policy = "policy"
    region = "region"
    train = "train"
    coordinator = "coordinator"
    transfer = "transfer"


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    kind: Annotated[KindOption, typer.Option(help="What the file is.")] = KindOption.experiment,
    overrides: Overrides = None,
    _json: Json = False,
) -> Answer:
    """Check a file and show every value.

    FILE is TOML; defaults and overrides are filled in. Every error in it is shown.
    """
    from fedfsd.config.load import load

    found = load(_model(kind), file, overrides=overrides or []).model_dump(mode="json")
    text = [f"{plain(file)}: a valid {kind}", *(f"  {plain(line)}" for line in _lines(found))]
    return Answer(found, "\n".join(text))


def schema(
    kind: Annotated[KindOption, typer.Argument()] = KindOption.experiment,
    _json: Json = False,
) -> Answer:
    """Print the JSON Schema for editors."""
    found = schema_of(kind)
    return Answer(found, json.dumps(found, indent=1))


def pins(_json: Json = False) -> Answer:
    """Print pins of installed models and tasks for a policy.

    Review every file of a package before you paste its pin. Readers are comments: only fedfsd data import
    runs them, so no policy names them.
    """
    from fedfsd.errors import RefusedError
    from fedfsd.task import pin

    found: list[dict[str, Any]] = []
    lines: list[str] = []
    for group, entry, package in pin.installed():
        named = {"name": entry.name, "distribution": "", "version": ""}
        if entry.dist is not None:
            named |= {"distribution": entry.dist.name, "version": entry.dist.version}
        if isinstance(package, RefusedError):
            found.append({"group": group, **named, "refused": package.document()})
            lines += [
                f"# {group}: {plain(entry.name)} of {plain(named['distribution'])}: {plain(package)}",
                "",
            ]
            continue
        named["package_sha256"] = package.sha256
        found.append({"group": group, **named, "files": dict(package.files)})
        files = f"{len(package.files)} files of {package.name}"
        table = [f"[[{group}]]", *(f"{key} = {json.dumps(value)}" for key, value in named.items())]
        lines += [f"# {plain(files)}", *(f"{'# ' * (group == 'readers')}{plain(line)}" for line in table), ""]
    text = "\n".join(lines).rstrip() or "# no package registers a model, task or reader"
    return Answer({"pins": found}, text)


def code(_json: Json = False) -> Answer:
    """Print the hashes of this installation for audit verify.

    One line each for fedfsd and for the packages that compute, as --code takes them. Review them first.
    """
    from fedfsd.ledger import program as programs

    found = programs.installed()
    lines = [("fedfsd", found.version, found.code)]
    lines += [(name, one.version, one.sha256) for name, one in found.packages.items()]
    return Answer(found.model_dump(), "\n".join(" ".join(line) for line in lines))


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file of this kind."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_model(KindOption(kind)).model_json_schema(),
    }


def _model(kind: KindOption) -> Any:
    """The settings class of a kind of file, imported only where it is asked for."""
    with extra("node"):
        module, name = _MODELS[kind].split(":")
        return getattr(import_module(module), name)


_MODELS = {
    KindOption.experiment: "fedfsd.config.experiment:Experiment",
    KindOption.policy: "fedfsd.gate.policy:Policy",
    KindOption.region: "fedfsd.node.settings:RegionSettings",
    KindOption.train: "fedfsd.runner.process:Settings",
    KindOption.coordinator: "fedfsd.coordinator.folder:CoordinatorSettings",
    KindOption.transfer: "fedfsd.audit.declaration:Declaration",
}


def _lines(document: dict[str, Any], prefix: str = "") -> list[str]:
    """``a.b = value`` for each key that has a value."""
    found = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            found += _lines(value, f"{prefix}{key}.")
        elif value is not None and value != {}:
            found.append(f"{prefix}{key} = {json.dumps(value)}")
    return found


COMMANDS = (
    ("check", check, "experiments/quickstart.toml"),
    ("schema", schema, "experiment > experiment.schema.json"),
    ("pins", pins, "> pins.toml"),
    ("code", code, "> reviewed.txt"),
)
