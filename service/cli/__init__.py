"""A door: the command `counterfoil`."""
