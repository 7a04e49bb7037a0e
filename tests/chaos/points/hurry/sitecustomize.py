"""Lets a worker's main process replace a killed child quickly, and takes a guard out if one is named.

Celery's prefork pool looks after children that never said they were up every five seconds (`AsynPool.timers`), and
collects garbage before each fork; thousands of killed newborns would make an afternoon of that. Put on the PYTHONPATH
of a program by a test; the product has no switch for it.
"""

from __future__ import annotations

import gc
import os
import runpy
from pathlib import Path

from celery.concurrency.asynpool import AsynPool
from celery.signals import worker_init

LOOK_SECONDS = 0.05

AsynPool.timers = property(lambda pool: {pool.maintain_pool: LOOK_SECONDS})


@worker_init.connect(weak=False)
def _freeze(**_: object) -> None:
    gc.collect()
    gc.freeze()


if os.environ.get("COUNTERFOIL_TEST_CONTROL"):
    # Its neighbours in that folder are on the path as well (house.py).
    runpy.run_path(str(Path(__file__).resolve().parents[3] / "flow" / "controls" / "sitecustomize.py"))
