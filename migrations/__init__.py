"""Every change of the schema, from the first table on; forward only in production, downgrades tested."""
