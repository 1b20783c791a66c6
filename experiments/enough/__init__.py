"""How many vehicles does an epsilon need? ``python -m experiments.enough``."""
