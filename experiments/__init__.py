"""Studies and measurements, each reproducible with one command. Not part of the wheel."""
