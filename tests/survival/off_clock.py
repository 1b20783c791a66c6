"""Run a module on a machine whose clock is off: ``python off_clock.py SECONDS MODULE [WORDS]``."""

from __future__ import annotations

import datetime
import runpy
import sys
import time

_real_time, _real_datetime = time.time, datetime.datetime


def shift(seconds: float) -> None:
    """Have Python's own clocks off by so much."""

    class Datetime(_real_datetime):
        """The class whose ``now`` is off."""

        @classmethod
        def now(cls, tz=None):
            return _real_datetime.fromtimestamp(_real_time() + seconds, tz)

    time.time = lambda: _real_time() + seconds
    datetime.datetime = Datetime


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
