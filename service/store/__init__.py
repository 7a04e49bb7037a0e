"""Floor 1: every SQL statement, and nothing else."""
