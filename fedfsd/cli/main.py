"""The command ``fedfsd``: its groups, and the one place where an outcome becomes output and exit code.

Nothing heavy is imported before a command runs: ``fedfsd --help`` answers in under half a second.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fedfsd.cli import (
    audit,
    clean,
    compare,
    completion,
    config,
    coordinator,
    data,
    keys,
    plan,
    region,
    serve,
    simulate,
)
from fedfsd.cli import version as versions
from fedfsd.cli.answer import Answer, Json
from fedfsd.errors import ConfigError, FedfsdError, NotReadyError, UsageError
from fedfsd.plain_text import plain


class _Command(TyperCommand):
    def get_help(self, ctx: Any) -> str:
        # Some versions of typer escape brackets for rich even where rich does not print the help.
        return super().get_help(ctx).replace("\\[", "[")


# Plain help: the same on every version of typer and rich, and no markup for any text to slip into.
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}

app = typer.Typer(
    help="Train one driving model on data that may not leave its regions, and account for the privacy cost.",
    epilog="Start with: fedfsd simulate experiments/quickstart.toml",
    **_PLAIN,
)
_GROUPS: dict[str, tuple[str | None, Sequence[tuple[str, Callable[..., Answer], str]]]] = {
    "": (
        None,
        (
            ("simulate", simulate.simulate, "experiments/quickstart.toml --set privacy.target_epsilon=4"),
            ("plan", plan.plan, "experiments/quickstart.toml --set privacy.target_epsilon=2"),
            ("compare", compare.compare, "runs/epsilon-* -o runs/comparison"),
            ("clean", clean.clean, "runs/quickstart"),
            ("serve", serve.serve, "runs/quickstart"),
            ("completion", completion.completion, "bash > ~/.local/share/bash-completion/completions/fedfsd"),
        ),
    ),
    "data": ("Make, import, check and look at tables of drives.", data.COMMANDS),
    "region": ("Run a region: its node, budget and ledger.", region.COMMANDS),
    "coordinator": ("Run a federation: invite regions, train over the border.", coordinator.COMMANDS),
    "keys": ("Make keys and show public keys.", keys.COMMANDS),
    "audit": ("Verify regions' claims against their evidence, offline.", audit.COMMANDS),
    "config": ("Check experiment files; print JSON Schemas and pins.", config.COMMANDS),
}
for _group, (_about, _commands) in _GROUPS.items():
    _place = typer.Typer(help=_about, **_PLAIN) if _group else app
    for _name, _command, _example in _commands:
        _words = " ".join(("fedfsd", *filter(None, [_group]), _name, _example))
        _place.command(_name, cls=_Command, epilog=f"\b\nExample:\n  {_words}")(_command)
    if _group:
        app.add_typer(_place, name=_group)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print versions and the hash of the program.")
    ] = False,
    _json: Json = False,
) -> Answer | None:
    """What stands before a command."""
    command = context.invoked_subcommand
    if version and command is None:
        return versions.version()
    if version:
        raise UsageError("--version", got=f"a command ({command})", expected="none")
    if command is None:
        raise UsageError("fedfsd", got="no command", hint="fedfsd --help lists them")
    return None


def run(arguments: Sequence[str] | None = None) -> None:
    """The console script: run one command and exit. Results go to stdout, all else to stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    completion.begin()
    as_json = "--json" in words
    with _stdout_for_the_document_alone() if as_json else nullcontext():
        outcome = _outcome(words)
    try:
        _print(outcome, as_json=as_json)
    except BrokenPipeError:  # the reader had enough, as in: fedfsd config schema | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(outcome.exit_code)


@cache
def tree() -> Any:
    """All commands; typer would read the signature of each anew for every call in one process."""
    return typer.main.get_command(app)


def _outcome(words: Sequence[str]) -> Answer | FedfsdError:
    try:
        found = tree()(list(words) or ["--help"], prog_name="fedfsd", standalone_mode=False)
        # --help has printed its text already; of Ctrl-C some versions of typer leave only the number.
        code = 0 if isinstance(found, Answer) else int(found or 0)
        if code == Interrupted.exit_code:
            return Interrupted()
        return found if isinstance(found, Answer) else Answer(None, "", code)
    except (KeyboardInterrupt, typer.Abort):
        return Interrupted()
    except FedfsdError as error:
        _debug()
        return error
    except OSError as error:
        _debug()
        return NotReadyError(
            str(error.filename or "the file system"),
            got=error.strerror or type(error).__name__,
            expected="a place that can be read and written",
            hint="check the path, its rights and the free space",
        )
    except Exception as error:
        _debug()
        # typer's parser: click's class or, in newer versions, one of typer's own, under the same names.
        if hasattr(error, "format_message"):
            return _usage(error)
        return Bug(error)


class Interrupted(FedfsdError):
    """Ctrl-C."""

    code, exit_code = "interrupted", 130

    def __init__(self) -> None:
        super().__init__("Ctrl-C", hint="a run that had begun continues with the same command and --resume")


class Bug(FedfsdError):
    """An exception that no refusal was written for. Its text may hold data: only its kind is shown."""

    code, exit_code = "bug", 1

    def __init__(self, error: Exception) -> None:
        here = Path(__file__).parents[1]
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(here)
        ]
        place = f"{Path(frames[-1].filename).relative_to(here.parent)}:{frames[-1].lineno}" if frames else "?"
        super().__init__(
            f"{type(error).__name__} in {place}",
            hint="run it again with FEDFSD_DEBUG=1 and report the traceback to the maintainers of fedfsd",
        )


def _usage(error: Any) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fedfsd"
    # Some versions of click and typer both add the same suggestion.
    sentences = dict.fromkeys(re.split(r"(?<=[.?]) ", error.format_message().strip()))
    return UsageError(command, got=" ".join(sentences).rstrip("."), hint=f"{command} --help shows how")


def _print(outcome: Answer | FedfsdError, *, as_json: bool) -> None:
    if isinstance(outcome, FedfsdError):
        document, text = {"error": outcome.document()}, ""
        for error in (outcome, *(outcome.others if isinstance(outcome, ConfigError) else ())):
            print(plain(error), file=sys.stderr)
    else:
        document, text = outcome.document, outcome.text
    if as_json and document is not None:
        text = json.dumps(document, indent=1, allow_nan=False)
    if text:
        print(text, flush=True)


def _debug() -> None:
    if os.environ.get("FEDFSD_DEBUG") == "1":
        traceback.print_exc()


@contextmanager
def _stdout_for_the_document_alone() -> Iterator[None]:
    """Whatever libraries and worker processes print meanwhile goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
