"""Surroundings: logs and the context that travels with an effect."""
