"""What callers import and workers run.

    from tasks import charge, email, refund, capture, cancel

Callers: `charge.apply_async(kwargs=…, dedupe_key=…, session=…)`. Workers: `celery -A tasks worker`.
"""

from tasks.app import app
from tasks.authorisations import cancel, capture
from tasks.kinds import KINDS, task_of
from tasks.mail import email
from tasks.payments import charge
from tasks.periodic import watch
from tasks.refunds import refund
from tasks.result import EffectResult

__all__ = ["KINDS", "EffectResult", "app", "cancel", "capture", "charge", "email", "refund", "task_of", "watch"]
