"""Floor 1: every SQL statement, and nothing else.

tables · database · effects (accept, find) · attempts (claim, record, settle) · outbox (the relay's side) ·
journal · bell (wakes the relay after a commit)
"""
