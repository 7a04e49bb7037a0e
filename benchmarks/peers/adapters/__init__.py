"""One file a peer, each used as its own documentation says, behind one interface that `actor` calls.

prepare()            what has to exist in an empty database and broker
submit(key, amount)  ask for one charge; says what the caller was told, in the library's words
work()               a worker, until somebody kills it
recover()            after the crash, besides starting the worker again: what the library's documentation says
state(key)           the library's own word for where the charge stands
ENDS                 which of these words are an end: "finished" or "failed"
"""
