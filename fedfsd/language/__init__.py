"""The language of what people read: English as it stands in the code, any other from a catalogue.

A sentence is a literal in the code, ``say("{number} rounds", number=3)``: the catalogue is asked for the
literal, and the values are put in afterwards. Figures, names, hashes, codes and the keys of documents are
never translated. A constant that is said later is wrapped in ``mark``, so that extraction finds it.

A language is a folder here with ``LC_MESSAGES/fedfsd.po`` and the ``.mo`` made of it;
``python -m fedfsd.language`` writes both anew from the code (it needs Babel, from the extra ``test``).

>>> with speaking("zh"):
...     say("Plans")
'计划'
>>> say("Plans")
'Plans'
"""

from __future__ import annotations

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from fedfsd.errors import UsageError

ENGLISH = "en"
DOMAIN = "fedfsd"
HERE = Path(__file__).parent
_SPOKEN: ContextVar[tuple[str, gettext.NullTranslations]] = ContextVar(
    "language", default=(ENGLISH, gettext.NullTranslations())
)


def languages() -> tuple[str, ...]:
    """English and every language with a catalogue."""
    return (ENGLISH, *sorted(path.parts[-3] for path in HERE.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")))


def spoken() -> str:
    """The language in force, as HTML names it."""
    return _SPOKEN.get()[0]


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Whatever is said inside is said in ``language``.

    Raises:
        UsageError: there is no catalogue of it.
    """
    if language not in languages():
        raise UsageError("--lang", got=language, expected=f"one of {', '.join(languages())}")
    found = gettext.NullTranslations()
    if language != ENGLISH:
        found = gettext.translation(DOMAIN, HERE, [language])
    token = _SPOKEN.set((language, found))
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def say(text: str, /, **values: object) -> str:
    """``text`` in the language in force, with ``values`` put into its braces."""
    found = _SPOKEN.get()[1].gettext(text) if text else ""
    return found.format(**values) if values else found


def say_count(one: str, many: str, /, number: int) -> str:
    """A number of things: ``say_count("{n:,} plan", "{n:,} plans", 2)``."""
    return _SPOKEN.get()[1].ngettext(one, many, number).format(n=number)


def mark(text: str) -> str:
    """``text`` itself: a constant that ``say`` is given later."""
    return text
