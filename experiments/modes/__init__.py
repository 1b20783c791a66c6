"""Does a forecaster of several paths know which is right? ``python -m experiments.modes``."""
