"""One check of `doctor`: what was seen, what it means if it is not well, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from service.core.errors import CounterfoilError

FIXES = {
    "database": "set COUNTERFOIL_DATABASE_URL to a Postgres that runs, or start the embedded one: counterfoil up",
    "broker": "set COUNTERFOIL_BROKER_URL to a broker that runs, or start the embedded one: counterfoil up",
    "payments": "set COUNTERFOIL_STRIPE_API_KEY (sk_test_… for a sandbox)",
    "life": "set COUNTERFOIL_STATE_DIR to a directory that can be written",
    "mail": "set COUNTERFOIL_EMAIL_URL (smtp://… or resend+https://KEY@host)",
}


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is what was seen; `meaning` and `fix` speak of the case that it is not ok."""

    name: str
    ok: bool
    found: str
    meaning: str
    fix: str

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def guarded(name: str, look: Callable[[], Check]) -> Iterator[Check]:
    """What `look` finds; a failure of its own is a finding as well, never a traceback."""
    try:
        yield look()
    except CounterfoilError as error:
        yield Check(
            name, ok=False, found=error.message, meaning="This could not be looked at.", fix=FIXES.get(name, "")
        )
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, not an end
        yield Check(
            name, ok=False, found=type(error).__name__, meaning="This check met a bug.", fix="counterfoil db check"
        )
