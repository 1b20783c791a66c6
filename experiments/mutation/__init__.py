"""How strong the tests are where it matters: small faults, one at a time (``python -m experiments.mutation``)."""
