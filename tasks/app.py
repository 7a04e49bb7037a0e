"""The Celery app of this process: configured, not connected. Importing it needs no broker and no database."""

from __future__ import annotations

from service import settings
from service.broker.app import create_app

app = create_app(settings.load())
