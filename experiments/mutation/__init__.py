"""Tests' strength where it matters: one small fault after another (``python -m experiments.mutation``)."""
