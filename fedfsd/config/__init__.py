"""What a person writes: TOML files read into frozen models, unknown keys refused."""
