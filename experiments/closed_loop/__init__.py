"""Does a better forecast drive better? ``python -m experiments.closed_loop``."""
