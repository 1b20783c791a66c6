"""Foreign text, made safe to show."""

from __future__ import annotations

import unicodedata


def plain(value: object, *, limit: int | None = None) -> str:
    r"""``value`` as text that a terminal shows and never obeys: characters that do not print are escaped.

    With ``limit`` it is at most that many characters long.

    >>> plain("EU\x1b[2J\u202e")
    'EU\\x1b[2J\\u202e'
    >>> plain("recording-0042", limit=10)
    'recording…'
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def folded(text: str, width: int = 92, *, indent: str = "", lead: str | None = None) -> str:
    """Lines of at most ``width`` columns, broken at blanks, and anywhere between wide characters.

    Chinese has no blanks, and each of its characters fills two columns.

    Args:
        indent: before each line.
        lead: in the place of ``indent`` before the first one.

    >>> print(folded("one two three 隐私预算", 12))
    one two
    three 隐私预
    算
    """
    lines, line, used = [], indent if lead is None else lead, 0
    start = used = columns(line)
    for part in _parts(text):
        if used + columns(part.rstrip()) > width and used > start:
            lines.append(line.rstrip())
            line, part = indent, part.lstrip()
            start = used = columns(line)
        line, used = line + part, used + columns(part)
    return "\n".join([*lines, line.rstrip()])


def columns(text: str) -> int:
    """How many columns of a terminal ``text`` fills."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _parts(text: str) -> list[str]:
    """Pieces that stay whole: words with the blank after them, and single wide characters.

    A line does not begin with a closing mark.
    """
    found: list[str] = []
    for one in text:
        wide = columns(one) == 2
        open_end = found and found[-1] and (found[-1][-1] == " " or columns(found[-1][-1]) == 2)
        opened = found and found[-1] and found[-1][-1] in "（“《"
        if found and (
            opened or one in "，。；：、）”》！？" or (not wide and not open_end) or (one == " " and found)
        ):
            found[-1] += one
        else:
            found.append(one)
    return found
