"""One frozen `Settings`, read from the environment, checked as a whole; secrets never print.

Every name has the prefix `COUNTERFOIL_`. Times are seconds. `Settings.load()` adds the embedded servers of
`STATE_DIR` where no URL is set and they are running.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.errors import NO_CLUSTER, SettingsError
from service.embedded import address

_BROKERS = ("redis", "rediss", "sentinel", "amqp", "amqps")


class Settings(BaseSettings):
    """What an operator may choose. The defaults are for production; the demo shortens the times."""

    model_config = SettingsConfigDict(env_prefix="COUNTERFOIL_", frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    stripe_api_key: SecretStr | None = None
    stripe_api_base: str | None = None
    stripe_webhook_secret: SecretStr | None = None
    """The endpoint's signing secret; while one is rolled, the old and the new one separated by a comma."""
    email_url: SecretStr | None = None
    email_sender: str = "receipts@localhost.test"
    allow_live: bool = False
    state_dir: Path = Path(".counterfoil")
    api_host: str = "127.0.0.1"
    api_port: int = 8000
    api_open: bool = False
    """Let the API, which has no keys yet, listen beyond loopback (behind your own gateway)."""
    lanes: str = "charge,email"
    """Celery queues that exist, comma-separated; a lane that is not listed is refused at accept."""
    log_format: str = "auto"
    """`json`, `console`, or `auto`: console on a terminal."""
    log_level: str = "INFO"

    slots: int = 32
    """Effects one worker process performs at a time."""
    window: int = 1000
    """Published, unsettled effects over all lanes; the backlog waits in Postgres."""
    provider_deadline: float = 20.0
    """The longest one provider call may take from connect to last byte."""
    lease: float = 90.0
    """How long an attempt owns its effect. Longer than every call of an attempt together, so that a worker that
    is still waiting for an answer is not fenced."""
    redelivery: float = 105.0
    """When a published and unsettled effect is published again. Longer than the lease, so that the lease is over."""
    poll: float = 1.0
    """The relay's look at the outbox when nobody rings."""
    attempt_budget: int = 60
    """Attempts before an effect is parked; with the backoff's ten-minute cap about five hours."""
    age_limit: float = 3 * 86400.0
    """Unsettled for longer than this, an effect is parked: a weekend-long outage must not park everything."""
    stripe_rate: float | None = Field(default=None, ge=0, le=1_000_000, allow_inf_nan=False)
    """Calls a second to the Stripe account over all workers; 0 is no limit. By default Stripe's own: 100 live, 25 test,
    and none for a fake on loopback."""
    email_rate: float | None = Field(default=None, ge=0, le=1_000_000, allow_inf_nan=False)
    """Letters a second over all workers; 0 is no limit. By default 5 to Resend and no limit for SMTP."""
    circuit_failures: int = Field(default=10, ge=0)
    """Failures of a provider in a row after which nothing is claimed for it until a probe succeeds; 0 is never."""

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        """Settings that contradict each other are refused at start, not met at 3 a.m."""
        if self.lease < 3 * self.provider_deadline + 1:
            raise ValueError("COUNTERFOIL_LEASE must exceed three provider deadlines by a second (a charge's calls)")
        if self.redelivery <= self.lease:
            raise ValueError("COUNTERFOIL_REDELIVERY must exceed COUNTERFOIL_LEASE, else live attempts are redelivered")
        key = self.stripe_api_key.get_secret_value() if self.stripe_api_key else ""
        if key.startswith(("sk_live_", "rk_live_")) and not self.allow_live:
            raise ValueError("COUNTERFOIL_STRIPE_API_KEY is a live key; set COUNTERFOIL_ALLOW_LIVE=true if you mean it")
        if self.broker_url:
            _check_broker(self.broker_url.get_secret_value())
        if self.database_url and not urlsplit(self.database_url.get_secret_value()).scheme.startswith("postgres"):
            raise ValueError("COUNTERFOIL_DATABASE_URL must start with postgresql://")
        return self

    @property
    def lane_names(self) -> tuple[str, ...]:
        """The lanes as a tuple, in order."""
        return tuple(name.strip() for name in self.lanes.split(",") if name.strip())

    @property
    def stripe_webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that a webhook may be signed with, none when webhooks are not set up."""
        given = self.stripe_webhook_secret.get_secret_value() if self.stripe_webhook_secret else ""
        return tuple(secret.strip() for secret in given.split(",") if secret.strip())

    def database(self) -> str:
        """The database URL: set, or that of running embedded servers. Raises SettingsError naming the fix."""
        return self._url(self.database_url, "COUNTERFOIL_DATABASE_URL", lambda a: a.database_url)

    def broker(self) -> str:
        """The broker URL: set, or that of running embedded servers. Raises SettingsError naming the fix."""
        return self._url(self.broker_url, "COUNTERFOIL_BROKER_URL", lambda a: a.broker_url)

    def _url(self, chosen: SecretStr | None, name: str, pick: Callable[[address.Addresses], str | None]) -> str:
        if chosen is not None:
            return chosen.get_secret_value()
        running = address.running(self.state_dir)
        url = pick(running) if running else None
        if url:
            return url
        raise SettingsError(
            f"{name} is not set and no embedded server runs in {self.state_dir}: set it, or run `counterfoil up`",
            field=name,
        )


def _check_broker(url: str) -> None:
    parts = urlsplit(url.split(";", maxsplit=1)[0])
    scheme = parts.scheme.split("+")[0]
    if "cluster" in parts.scheme:
        raise ValueError(NO_CLUSTER)
    if scheme not in _BROKERS:
        raise ValueError(f"COUNTERFOIL_BROKER_URL must start with one of {', '.join(_BROKERS)}, not {scheme!r}")


@cache
def load() -> Settings:
    """The settings of this process, read once. Raises SettingsError naming each wrong setting and its fix."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_sentences(error)) from None


def _sentences(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        name = "_".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"COUNTERFOIL_{name.upper()}: {message}" if name else message)
    return "; ".join(lines)
