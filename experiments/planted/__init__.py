"""Faults planted in the private step, and what notices them in operation."""
