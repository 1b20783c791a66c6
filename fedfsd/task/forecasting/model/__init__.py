"""Forecasting models. One dict names them; another package adds its own by entry point.

A model maps history (B, H, 2) [m, agent frame] to paths (B, K, F, 2) [m] and scores (B, K)
(higher: more likely). It treats each row of a batch alone.
"""
