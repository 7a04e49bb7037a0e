"""Floor 2: one verb a file, in the order of the flow.

accept    put effects on the books, inside the caller's transaction
relay     outbox → broker: whatever is due, at least once, in any order
execute   claim → perform → settle, each in its own commit
replay    a person makes rows come due again, with a reason
"""
