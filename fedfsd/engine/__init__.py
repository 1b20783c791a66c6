"""Training inside a region: the private step and what it stands on."""
