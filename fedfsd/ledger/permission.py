"""Approvals to transfer, and how much of them is used. A date can only refuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedfsd.errors import RefusedError
from fedfsd.ledger.entry import Approval


@dataclass
class Permission:
    """One approval with what reservations and releases have used of it, by calendar year."""

    approval: Approval
    void: bool = False
    reserved: Counter[int] = field(default_factory=Counter)
    reserved_bytes: Counter[int] = field(default_factory=Counter)
    released: Counter[int] = field(default_factory=Counter)
    released_bytes: Counter[int] = field(default_factory=Counter)

    def objection(
        self, *, data_set: str, recipient: str, purpose: str, task: str, model: str, size: int, date: str
    ) -> str | None:
        """Why this approval does not cover one more release of ``size`` bytes booked on ``date``."""
        mine, year = self.approval, year_of(date)
        checks = (
            (not self.void, "void since a recovery"),
            (mine.data_set == data_set, "for another data set"),
            (mine.recipient == recipient, "for another recipient"),
            (mine.purpose == purpose, "for another purpose"),
            (not mine.tasks or task in mine.tasks or "*" in mine.tasks, "for other tasks"),
            (model in mine.models or "*" in mine.models, "for other models"),
            (mine.valid_from <= date, f"valid from {mine.valid_from} only"),
            (date <= mine.valid_until, f"expired on {mine.valid_until}"),
            (
                self.reserved[year] + 1 <= mine.max_releases,
                f"used up in {year} ({mine.max_releases} releases)",
            ),
            (
                self.reserved_bytes[year] + size <= mine.max_bytes,
                f"used up in {year} ({mine.max_bytes} bytes)",
            ),
        )
        return next((text for holds, text in checks if not holds), None)

    def book(self, year: int, size: int) -> None:
        """A reservation relies on it."""
        self.reserved[year] += 1
        self.reserved_bytes[year] += size

    def give_back(self, year: int, size: int) -> None:
        """That reservation was aborted."""
        self.reserved[year] -= 1
        self.reserved_bytes[year] -= size

    def totals(self, year: int, size: int) -> tuple[int, int]:
        """Releases and bytes of ``year`` with one more release of ``size`` bytes."""
        return self.released[year] + 1, self.released_bytes[year] + size


def year_of(date: str) -> int:
    """The calendar year of YYYY-MM-DD."""
    return int(date[:4])


def refusal(recipient: str, objections: list[str]) -> RefusedError:
    """No approval covers a transfer: one error for all reasons."""
    return RefusedError(
        f"transfer to {recipient}",
        got="; ".join(objections) or "no approval",
        expected="an approval that covers it",
        hint="fedfsd region approve with a permission signed by the data officer",
    )
