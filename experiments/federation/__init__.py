"""A federation on one machine, over the real border: ``python -m experiments.federation``."""
