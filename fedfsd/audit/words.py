"""How foreign text and figures are put on a page.

Text from a bundle or a region's file is made printable, cut, and stripped of words that would assert a
legal status: a label called "anonymous fleet" must not turn a guarantee into one.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from importlib import metadata
from typing import Any

from fedfsd.language import ENGLISH, say, say_count, spoken
from fedfsd.mechanism.statement import best_guess, sentence
from fedfsd.plain_text import plain

LONGEST = 2000
WITHHELD = "[…]"
WEAK = 0.99  # from here on an attacker may guess almost always right
_STATUS = re.compile(r"anonym|de-?identif|complian|complies|comply", re.IGNORECASE)
_MARKUP = re.compile(r"([\\`*_{}\[\]#+!|~$@]|(?<=[wW])\.|:(?=//))")


def said(text: object, longest: int = LONGEST) -> str:
    """Somebody else's words, harmless and short enough.

    >>> said("EU fleet\\x1b[2J (Anonymised)", 30)
    'EU fleet\\\\x1b[2J […]'
    """
    whole = str(text)
    shown = re.sub(
        r"\S+",
        lambda word: WITHHELD if _STATUS.search(word[0]) else word[0],
        plain(whole[: 4 * longest]),
    )
    if len(shown) <= longest and len(whole) <= 4 * longest:
        return shown
    return f"{shown[:longest]}… ({len(whole):,} characters)"


def all_said(value: Any) -> Any:
    """A document of plain values, every text in it said."""
    if isinstance(value, dict):
        return {key: all_said(one) for key, one in value.items()}
    if isinstance(value, list):
        return [all_said(one) for one in value]
    return said(value) if isinstance(value, str) else value


def quoted(text: object, longest: int = 200) -> str:
    """The same between quotation marks, inside a sentence of ours."""
    return f"“{said(text, longest)}”"


def chance(delta: float) -> str:
    """A small probability, rounded towards the claim.

    >>> chance(1e-4)
    '1 in 10,000'
    """
    return say("1 in {number:,}", number=math.floor(1 / delta + 1e-6))


def meaning(epsilon: float, delta: float) -> str:
    """What an epsilon rules out; a large one is called weak."""
    weak = best_guess(epsilon, delta) >= WEAK
    if not weak:
        return sentence(epsilon, delta)
    more = say("In the worst case that rules out little; a smaller epsilon rules out more.")
    return say("{sentence} {more}", sentence=sentence(epsilon, delta), more=more)


def counted(number: int, word: str) -> str:
    """A number of things.

    >>> counted(1, "plan"), counted(1200, "round")
    ('1 plan', '1,200 rounds')
    """
    things = {
        "plan": lambda: say_count("{n:,} plan", "{n:,} plans", number),
        "round": lambda: say_count("{n:,} round", "{n:,} rounds", number),
        "booked round": lambda: say_count("{n:,} booked round", "{n:,} booked rounds", number),
        "release": lambda: say_count("{n:,} release", "{n:,} releases", number),
        "region": lambda: say_count("{n:,} region", "{n:,} regions", number),
        "vehicle": lambda: say_count("{n:,} vehicle", "{n:,} vehicles", number),
    }
    return things[word]()


def word(number: int) -> str:
    """A small number at the start of a title."""
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[number] if number < len(words) and spoken() == ENGLISH else f"{number:,}"


def listed(words: list[str], most: int = 8) -> str:
    """a, b and c, or the first of many."""
    if len(words) > most:
        words = [*words[:most], say("{number:,} more", number=len(words) - most)]
    if len(words) < 2:
        return words[0] if words else say("none")
    return say("{first} and {last}", first=say(", ").join(words[:-1]), last=words[-1])


def percent(share: float) -> str:
    """A share in percent, rounded upwards.

    >>> percent(0.0183), percent(0.0000001)
    ('1.83 %', '0.01 %')
    """
    return f"{math.ceil(1e4 * share - 1e-9) / 100:.2f} %"


@lru_cache
def version(package: str) -> str:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def markdown(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link that a reader could click."""
    plain = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", plain)
