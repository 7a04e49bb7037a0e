"""Floor 0, pure: what an effect is, which states it may take and what an answer means. No clock, no I/O."""
