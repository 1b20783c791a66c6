"""How strong the tests are where it matters: small faults put in, one at a time (``python -m experiments.mutation``)."""
