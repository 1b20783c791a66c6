"""The errors a person sees: each names a place, what was got, what was expected, and one fix.

>>> print(PlanError("privacy.target_delta", got=0.01, expected="below 1/1925",
...                 hint="set privacy.target_delta = 1e-4"))
plan: privacy.target_delta: got 0.01, expected below 1/1925; fix: set privacy.target_delta = 1e-4
>>> print(ConfigError("name", got="nothing", expected="a value", hint="add name"))
config: name: is missing, expected a value; fix: add name
"""

from __future__ import annotations

from typing import Any, ClassVar


class FedfsdError(Exception):
    """One refusal. ``place`` is a file, key, region or column; values must never be private.

    Subclasses fix the ``code`` (stable, for machines) and the ``exit_code`` of the process.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, place: str, *, got: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        self.place, self.got, self.expected, self.hint = place, got, expected, hint
        super().__init__(place)

    def __str__(self) -> str:
        facts = [] if self.got is None else [_found(str(self.got))]
        facts += [] if self.expected is None else [f"expected {self.expected}"]
        text = f"{self.code}: {self.place}"
        if facts:
            text += ": " + ", ".join(facts)
        return text + (f"; fix: {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments: the default would call the class with the message alone.
        return _rebuild, (type(self), self.place, self.got, self.expected, self.hint)

    def document(self) -> dict[str, Any]:
        """The error as ``--json`` prints it."""
        return {
            "code": self.code,
            "place": self.place,
            "got": None if self.got is None else str(self.got),
            "expected": None if self.expected is None else str(self.expected),
            "hint": self.hint,
        }


def _found(got: str) -> str:
    """What was found, as a person says it: neither an absence nor a sentence needs a "got"."""
    if got == "nothing":
        return "is missing"
    bare = got.startswith(("no ", "neither ")) or got.endswith(" is already running")
    return got if bare else f"got {got}"


def _rebuild(
    kind: type[FedfsdError], place: str, got: object, expected: object, hint: str | None
) -> FedfsdError:
    return kind(place, got=got, expected=expected, hint=hint)


def install(extra: str) -> str:
    """How to get one of fedfsd's extras. Its name is on no package index, where anybody could take it.

    >>> install("node")
    'pip install ".[node]" in the checkout of fedfsd'
    """
    return f'pip install ".[{extra}]" in the checkout of fedfsd'


class UsageError(FedfsdError):
    """The command was called in a way it does not know."""

    code, exit_code = "usage", 2


class ConfigError(FedfsdError):
    """An experiment, policy or region file says something that cannot be."""

    code, exit_code = "config", 3
    others: tuple[ConfigError, ...] = ()
    """What else is wrong with the same file."""

    def document(self) -> dict[str, Any]:
        """As for any error; ``others`` where there are some."""
        found: dict[str, Any] = {**super().document()}
        return found | {"others": [one.document() for one in self.others]} if self.others else found


class FormatError(FedfsdError):
    """A document in a format that this release does not read: a newer release wrote it."""

    code, exit_code = "format", 4


class PlanError(FedfsdError):
    """The constants of a run contradict each other or the privacy they promise."""

    code, exit_code = "plan", 3


class ModelError(FedfsdError):
    """A model that cannot be trained privately, or arrays that are not this model's."""

    code, exit_code = "model", 3


class DataError(FedfsdError):
    """A table or recording that cannot be used as it is."""

    code, exit_code = "data", 4


class NotReadyError(FedfsdError):
    """Something the command needs is missing: an extra, a device, a folder, enough regions."""

    code, exit_code = "not_ready", 4


class PendingError(NotReadyError):
    """The same, where it is under way: it comes by itself, or with something that is asked for already."""


class AccountingError(FedfsdError):
    """A privacy loss that cannot be computed, or on which two accountants disagree."""

    code, exit_code = "accounting", 11


class BudgetError(FedfsdError):
    """A reservation the region's record or budget does not allow."""

    code, exit_code = "budget", 12


class RefusedError(FedfsdError):
    """The gate refuses what came in or what would go out."""

    code, exit_code = "refused", 13


class UnusualNoiseError(RefusedError):
    """An update unlike what its plan releases: the region's part in the plan ends with it."""

    def __init__(
        self,
        place: str,
        *,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
        finding: str = "",
    ) -> None:
        """``finding``: what was found, as a stable word."""
        usual = "stop this region and compare its program with the reviewed one (fedfsd config code)"
        super().__init__(place, got=got, expected=expected, hint=hint or usual)
        self.finding = finding
