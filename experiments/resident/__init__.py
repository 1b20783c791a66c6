"""What does a region make of the shared model for itself? ``python -m experiments.resident``."""
