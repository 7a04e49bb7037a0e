"""Every error a caller or an operator can meet, in one tree; the message always names the field and the fix.

    CounterfoilError
    ├── ValidationError        the request is refused before anything was written
    ├── DedupeConflict         the key was used before, with another request
    ├── NotExactlyOnce         the call cannot be made exactly-once; names the alternative
    ├── EffectNotFound         no such effect
    ├── OperationNotFound      no such operation
    ├── KeyNotFound            no such API key
    ├── SettingsError          a setting is missing or contradicts another
    ├── Quarantined            the database went back in time; nothing is sent until a person releases it
    ├── DependencyUnavailable  the database, the broker or a provider does not answer
    └── SetupError             a wheel, a platform or a permission is missing on this machine

Expected failures of a provider are not here: they are values (`service.core.outcome`).
"""

from __future__ import annotations


class CounterfoilError(Exception):
    """The root: catch this to catch whatever Counterfoil raises on purpose.

    `code` is a stable machine word (used by the HTTP problems and `--json`), `field` the input it speaks of.
    """

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class ValidationError(CounterfoilError, ValueError):
    """The request is refused; nothing was written. `field` names what to change.

    `found` lists every (field, sentence) when a request as a whole was looked at.
    """

    code = "invalid_request"
    found: tuple[tuple[str, str], ...] = ()


class DedupeConflict(CounterfoilError):
    """The same dedupe key arrived with another request (I4); the first one stands unchanged."""

    code = "dedupe_conflict"

    def __init__(self, message: str, *, effect_id: str) -> None:
        super().__init__(message, field="dedupe_key")
        self.effect_id = effect_id


class NotExactlyOnce(CounterfoilError, TypeError):
    """This way of calling cannot be exactly-once; the message names the way that is."""

    code = "not_exactly_once"


class EffectNotFound(CounterfoilError, LookupError):
    """There is no effect with this id for this tenant."""

    code = "effect_not_found"


class OperationNotFound(CounterfoilError, LookupError):
    """There is no operation with this id for this tenant."""

    code = "operation_not_found"


class KeyNotFound(CounterfoilError, LookupError):
    """There is no API key with this id."""

    code = "key_not_found"


class SettingsError(CounterfoilError):
    """A setting is missing, malformed or contradicts another one."""

    code = "settings"


NO_CLUSTER = (
    "COUNTERFOIL_BROKER_URL names a Redis Cluster, which Celery's transport cannot use: "
    "point it at a single Redis or Valkey, a Sentinel (sentinel://…) or RabbitMQ (amqp://…)"
)


class DependencyUnavailable(CounterfoilError):
    """The database, the broker or a provider does not answer; the message says which and what to look at."""

    code = "dependency_unavailable"


class Quarantined(CounterfoilError):
    """The database went back in time or is another one: what it holds as not sent may have been sent."""

    code = "quarantined"

    def __init__(self, reason: str) -> None:
        super().__init__(f"quarantined: {reason}; run `counterfoil recover`")
        self.reason = reason


class SetupError(CounterfoilError):
    """This machine lacks something to run the embedded servers; the message is one sentence with the fix."""

    code = "setup"
