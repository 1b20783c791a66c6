"""Foreign text, made safe to show."""

from __future__ import annotations


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
