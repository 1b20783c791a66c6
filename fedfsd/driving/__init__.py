"""Driving data, the forecasting task, its models and its metrics."""
