"""Counterfoil: side effects that happen exactly once.

The floors, from the top (imports only go down):

    cli, api                     doors
    tasks                        what callers import and workers run (top-level package)
    engine                       accept · relay · execute · replay
    store | providers | broker   all SQL | all calls out | the wire
    telemetry, settings, embedded
    core                         pure

The flow goes up exactly once: the broker calls a task by its name.
"""
