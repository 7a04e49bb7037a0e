"""One frozen `Settings`, read from the environment, checked as a whole; secrets never print.

Every name has the prefix `COUNTERFOIL_`. Times are seconds. `Settings.load()` adds the embedded servers of
`STATE_DIR` where no URL is set and they are running.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal
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
    api_auth: Literal["loopback", "keys"] = "loopback"
    """Who may call the API: whoever reaches this machine's loopback, as the tenant `default`; or who has a key."""
    api_open: bool = False
    """Let an API that asks for no key listen beyond loopback (behind your own gateway)."""
    oidc_issuer: str | None = None
    """Besides API keys, take bearer tokens (JWT) of this issuer: its `iss`, exactly."""
    oidc_audience: str | None = None
    oidc_jwks_url: str | None = None
    """Where its keys are; by default `ISSUER/.well-known/jwks.json`."""
    oidc_tenant_claim: str = "tenant"
    oidc_scope_claim: str = "scope"
    """A text of scopes separated by blanks (RFC 8693) or a list of them."""
    oidc_algorithms: str = "RS256,ES256"
    """The signatures that are taken, comma-separated; never one whose key is shared (HS256), never none."""
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
    payload_days: int = Field(default=90, ge=0, le=36_500)
    """How long after its settlement an effect's request is kept, with addresses and bodies; 0 is for ever. The key and
    the fingerprint stay in any case."""
    journal_months: int = Field(default=0, ge=0, le=1200)
    """How many whole months of the journal are kept before old ones are dropped; 0 is for ever."""

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        """Settings that contradict each other are refused at start, not met at 3 a.m."""
        if self.lease < 3 * self.provider_deadline + 1:
            raise ValueError("COUNTERFOIL_LEASE must exceed three provider deadlines by a second (a charge's calls)")
        if self.payload_days == 1:
            raise ValueError(
                "COUNTERFOIL_PAYLOAD_DAYS must be 0 (for ever) or 2 at least: providers keep keys for a day"
            )
        if self.redelivery <= self.lease:
            raise ValueError("COUNTERFOIL_REDELIVERY must exceed COUNTERFOIL_LEASE, else live attempts are redelivered")
        key = self.stripe_api_key.get_secret_value() if self.stripe_api_key else ""
        if key.startswith(("sk_live_", "rk_live_")) and not self.allow_live:
            raise ValueError("COUNTERFOIL_STRIPE_API_KEY is a live key; set COUNTERFOIL_ALLOW_LIVE=true if you mean it")
        _check_oidc(self)
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
    def algorithms(self) -> tuple[str, ...]:
        """The signatures of bearer tokens that are taken."""
        return tuple(name.strip() for name in self.oidc_algorithms.split(",") if name.strip())

    @property
    def jwks_url(self) -> str:
        """Where the issuer's keys are."""
        return self.oidc_jwks_url or f"{(self.oidc_issuer or '').rstrip('/')}/.well-known/jwks.json"

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


_SIGNATURES = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)


def _check_oidc(chosen: Settings) -> None:
    if chosen.oidc_issuer is None:
        if chosen.oidc_audience or chosen.oidc_jwks_url:
            raise ValueError("COUNTERFOIL_OIDC_ISSUER is missing beside the other COUNTERFOIL_OIDC_ settings")
        return
    if chosen.api_auth != "keys":
        raise ValueError("COUNTERFOIL_OIDC_ISSUER needs COUNTERFOIL_API_AUTH=keys, else nobody is asked for a token")
    if not chosen.oidc_audience:
        # RFC 8725 §3.9: a token that was issued for somebody else must not open this door.
        raise ValueError("COUNTERFOIL_OIDC_AUDIENCE is missing: the `aud` of tokens that are meant for this API")
    url = urlsplit(chosen.jwks_url)
    if url.scheme != "https" and (url.scheme != "http" or url.hostname not in ("127.0.0.1", "::1", "localhost")):
        raise ValueError("COUNTERFOIL_OIDC_JWKS_URL must start with https:// (http:// towards loopback only)")
    if not chosen.algorithms or set(chosen.algorithms) - _SIGNATURES:
        raise ValueError(f"COUNTERFOIL_OIDC_ALGORITHMS must be some of {', '.join(sorted(_SIGNATURES))}")


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
