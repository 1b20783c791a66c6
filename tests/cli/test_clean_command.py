"""``fedfsd clean`` as a user types it."""

from __future__ import annotations

from simulation.test_cleaning import interrupted

pytest_plugins = ["typing_user"]


def test_the_keys_of_an_interrupted_run_are_destroyed(fedfsd, folder, drives_path):
    interrupted(drives_path, folder / "run")
    said = fedfsd("clean", "run")
    assert (said.code, said.out) == (0, "run: 3 run keys destroyed, no test windows there\n")
    assert fedfsd("clean", "run", "--json").document == {"runs": {"run": {"keys": 0, "windows": False}}}
    assert fedfsd("clean", "nowhere").code == 4
