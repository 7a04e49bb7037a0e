"""What a running system tells about itself, and what it must never tell."""
