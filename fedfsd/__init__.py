"""fedfsd: one driving model from data that may not leave its regions."""
