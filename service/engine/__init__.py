"""Floor 2: one verb a file, in the order of the flow: accept, relay, execute, replay."""
