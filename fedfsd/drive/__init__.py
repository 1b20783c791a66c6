"""Recorded drives: tables, readers, the data check, pictures and generated traffic."""
