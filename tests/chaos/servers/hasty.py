"""Celery's app with a hard time limit of a second on each task: `celery -A tests.chaos.servers.hasty worker --pool prefork`.

The limit that the service sets itself is longer than any lease, and the command line cannot shorten it.
"""

from __future__ import annotations

from tasks import app

LIMIT_SECONDS = 1.0

for task in app.tasks.values():
    task.time_limit = LIMIT_SECONDS

__all__ = ["app"]
