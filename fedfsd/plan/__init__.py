"""A run's constants, agreed and hashed before the first step."""
