"""How both doctors' findings are said."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fedfsd.cli.answer import Answer, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedfsd.service.diagnosis import CheckResult

NOT_FIT = 4


def answer(name: str, findings: Sequence[CheckResult]) -> Answer:
    """A line a check, and below it the fix where one is needed; exit code 4 where one failed."""
    width = max(len(one.check) for one in findings)
    text = []
    for one in findings:
        text.append(f"{one.outcome:4}  {one.check.ljust(width)}  {plain(one.found)}")
        if one.fix is not None:
            text.append(f"{'':4}  {'':{width}}  fix: {plain(one.fix)}")
    fit = all(one.outcome != "fail" for one in findings)
    document = {"name": name, "fit": fit, "checks": [asdict(one) for one in findings]}
    return Answer(document, "\n".join(text), 0 if fit else NOT_FIT)
