"""Floor 1: every call out, one provider a file; a provider never decides, it reports an outcome."""
