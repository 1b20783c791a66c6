"""Run a federation here: prepare, train, evaluate, report."""
