"""A door: HTTP."""
