"""The numbers the project promises, measured: ``python -m experiments.benchmark``."""
