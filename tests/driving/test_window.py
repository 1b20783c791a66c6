"""Windows on the real extract, and what unusable vehicles do to everything else."""

from pathlib import Path

import numpy as np
import pytest

from fedfsd.driving import table, window

REAL = Path(__file__).parents[3] / "shared" / "data"
SPEC = window.WindowSpec()


@pytest.mark.skipif(not REAL.exists(), reason="the real recordings are not on this machine")
def test_reproduces_the_published_counts_of_the_real_recordings():
    tables = table.read(REAL)
    found = {}
    for region in ("CN", "EU", "SG", "US"):
        mine = table.in_region(tables, region)
        test = window.cut(mine, SPEC, test=True)
        last, velocity = test.points[:, 4], test.points[:, 4] - test.points[:, 3]
        fde = np.linalg.norm(last + 6 * velocity - test.points[:, -1], axis=1).mean()
        found[region] = (len(test), round(fde, 2), len(window.cut(mine, SPEC, test=False).vehicles))
    assert found == {
        "CN": (3601, 5.39, 1337),
        "EU": (514, 6.67, 233),
        "SG": (315, 3.84, 147),
        "US": (2382, 3.51, 1414),
    }
