"""Run a module as on a machine whose date is off: ``python off_clock.py SECONDS MODULE [WORDS]``.

Only ``datetime`` is: gRPC makes deadlines by ``time.time`` and measures them by the kernel's clock, which
on a real machine are one and the same.
"""

from __future__ import annotations

import datetime
import runpy
import sys

_real_datetime = datetime.datetime


def shift(seconds: float) -> None:
    """Have the date off by so much."""

    class Datetime(_real_datetime):
        """The class whose ``now`` is off; of the same size, as modules in C expect."""

        __slots__ = ()

        @classmethod
        def now(cls, tz=None):
            return _real_datetime.now(tz) + datetime.timedelta(seconds=seconds)

    datetime.datetime = Datetime


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
