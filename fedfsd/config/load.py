"""TOML into a frozen model, with overrides and errors that teach.

>>> from fedfsd.config.experiment import Experiment
>>> load(Experiment, {"name": "x"}, overrides=["privacy.target_epsilon=2"]).privacy.target_epsilon
2.0
>>> load(Experiment, {"name": "x", "traning": {}})
Traceback (most recent call last):
    ...
fedfsd.errors.ConfigError: config: traning: got an unknown key; fix: did you mean training?
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fedfsd import formats
from fedfsd.errors import ConfigError

Document = Mapping[str, Any]
M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """Base of everything read from a file: immutable, no unknown keys, no NaN or infinity."""

    FORMAT: ClassVar[str | None] = None
    """What ``formats`` calls a file of this kind; its ``format`` is looked at before the rest."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def current(cls, key: str) -> str:
        """The dotted key of today for ``key``, which may be one of an earlier format."""
        return key


def load(model: type[M], source: str | Path | Document, *, overrides: Iterable[str] = ()) -> M:
    """Read ``source`` (a TOML file or a mapping) and ``overrides`` (``a.b=value``) into ``model``.

    Raises:
        FormatError: a newer release's file.
        ConfigError: unreadable file, unknown key (with a suggestion), wrong type or value.
    """
    place, document = _document(source)
    if name := getattr(model, "FORMAT", None):
        formats.demand_known(name, document, place=f"{place}format")
    for override in overrides:
        key, value = _parted(override)
        set_key(document, model.current(key) if issubclass(model, Frozen) else key, value)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first, *others = [_explain(model, place, one) for one in error.errors(include_url=False)]
        first.others = tuple(others)
        raise first from None


def dotted(table: Document, prefix: str = "") -> dict[str, Any]:
    """A nested document by dotted keys.

    >>> dotted({"privacy": {"target_epsilon": 8.0}, "seed": 1})
    {'privacy.target_epsilon': 8.0, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


@contextmanager
def within(place: str) -> Iterator[None]:
    """What is refused inside is refused at its place in the table ``place``."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            f"{place}.{error.place}", got=error.got, expected=error.expected, hint=error.hint
        ) from None


def toml_value(text: str) -> Any:
    """A value as TOML would read it; text that is no TOML value stays text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError, so is a number of 5,000 digits
        return text


def set_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` in a nested document, making tables on the way."""
    *tables, last = key.split(".")
    for name in tables:
        document = document.setdefault(name, {})
        if not isinstance(document, dict):
            raise ConfigError(key, got=f"{name} is a value", expected="a table", hint="check the dotted key")
    document[last] = value


def _document(source: str | Path | Document) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return "", deepcopy(dict(source))
    path = Path(source)
    try:
        return f"{path}: ", tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            str(path), got="no such file", expected="a TOML file", hint="try experiments/quickstart.toml"
        ) from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(str(path), got="an unreadable file", expected="a TOML file in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), got=error, expected="valid TOML", hint="mend that line") from None


def _parted(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            "--set", got=repr(text), expected="key=value", hint="for example --set privacy.target_epsilon=4"
        )
    return key.strip(), toml_value(value.strip())


def _explain(model: type[BaseModel], place: str, first: Any) -> ConfigError:
    steps = [str(step) for step in first["loc"]]
    key = ".".join(steps)
    if first["type"] == "extra_forbidden":
        known = _keys(model, steps[:-1])
        near = difflib.get_close_matches(steps[-1], known, n=1, cutoff=0.75) or _elsewhere(model, steps[-1])
        hint = f"did you mean {' or '.join(near)}?" if near else f"known keys here: {', '.join(known)}"
        return ConfigError(place + key, got="an unknown key", hint=hint)
    if first["type"] == "missing":
        return ConfigError(place + key, got="nothing", expected="a value", hint=f"add {steps[-1]}")
    if first["type"] == "value_error" and isinstance(first["ctx"]["error"], ConfigError):
        inner = first["ctx"]["error"]
        return ConfigError(place + inner.place, got=inner.got, expected=inner.expected, hint=inner.hint)
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    message = _PLAIN.get(message.partition(" or instance of ")[0], message)
    return ConfigError(
        place + key, got=_given(first), expected=message, hint=f"change {steps[-1] if steps else key}"
    )


_PLAIN = {
    "a valid string": "text in quotes",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a table",
}
"""pydantic's words for kinds of values, as a TOML file has them."""


def _given(first: Any) -> str:
    value = first.get("input")
    return type(value).__name__ if isinstance(value, dict | list) else repr(value)[:60]


def _elsewhere(model: type[BaseModel], word: str) -> list[str]:
    """The dotted keys of any table whose last part is ``word``, or else comes nearest to it."""
    every = _leaves(model)
    last = sorted({key.rpartition(".")[2] for key in every})
    chosen = [word] if word in last else difflib.get_close_matches(word, last, n=1, cutoff=0.75)
    return [key for key in every if key.rpartition(".")[2] in chosen]


def _leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of all values in ``model`` and its tables."""
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _leaves(kind, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def _keys(model: type[BaseModel], steps: list[str]) -> list[str]:
    """The keys of the table that ``steps`` lead to."""
    for step in steps:
        field = model.model_fields.get(step)
        if field is None:  # a key of a mapping such as regions.CN: the mapping's value type follows
            continue
        inner = [field.annotation, *get_args(field.annotation)]
        models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return sorted(model.model_fields)
