"""Flat noise beside noise by round, at the same epsilon (``python -m experiments.noise_schedule``)."""
