"""What a round takes of the gate's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_round_takes_at_most_three_updates_of_memory(tmp_path):
    script = Path(__file__).with_name("runner_memory.py")
    said = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    assert found["update"] == 40_000_000
    assert found["above_idle"] <= 3 * found["update"]
