"""Coordinator and regions as Flower apps: the strategy, the client and the in-process grid."""
