"""Floor 1: the wire; fast and forgetful."""
