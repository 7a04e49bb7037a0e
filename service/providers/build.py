"""Builds the providers the settings name, or says which setting is wrong and what to write instead."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from service.core.errors import SettingsError
from service.providers.mail.resend import ResendMail
from service.providers.mail.smtp import Server, SmtpMail
from service.providers.ports import Provider
from service.providers.stripe.api import StripeApi
from service.providers.stripe.authorisations import StripeCancels, StripeCaptures
from service.providers.stripe.charges import StripeCharges
from service.providers.stripe.refunds import StripeRefunds
from service.settings import Settings

_Stripe = TypeVar("_Stripe", StripeCharges, StripeRefunds, StripeCaptures, StripeCancels)

_STRIPE_API = "https://api.stripe.com"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PORTS = {"none": 25, "starttls": 587, "implicit": 465}
_EMAIL_FORMS = "smtp://user:password@host:port?starttls=true, smtps://user:password@host or resend+https://KEY@host"


def charge_provider(settings: Settings) -> Provider:
    """Stripe, for kind `charge`. Raises SettingsError naming the setting and the fix."""
    return _stripe(StripeCharges, settings)


def refund_provider(settings: Settings) -> Provider:
    """Stripe, for kind `refund`. Raises SettingsError as `charge_provider`."""
    return _stripe(StripeRefunds, settings)


def capture_provider(settings: Settings) -> Provider:
    """Stripe, for kind `capture`. Raises SettingsError as `charge_provider`."""
    return _stripe(StripeCaptures, settings)


def cancel_provider(settings: Settings) -> Provider:
    """Stripe, for kind `cancel`. Raises SettingsError as `charge_provider`."""
    return _stripe(StripeCancels, settings)


def stripe_api(settings: Settings) -> StripeApi:
    """Stripe itself, for reading its lists. Raises SettingsError as `charge_provider`."""
    return _stripe_api(settings)[0]


def _stripe(kind: type[_Stripe], settings: Settings) -> _Stripe:
    api, live = _stripe_api(settings)
    return kind(api, livemode=live, deadline_seconds=settings.provider_deadline)


def _stripe_api(settings: Settings) -> tuple[StripeApi, bool]:
    """Stripe, and whether it is the live mode."""
    name = "COUNTERFOIL_STRIPE_API_KEY"
    if settings.stripe_api_key is None:
        raise SettingsError(
            f"{name} is not set: charges need a Stripe key (sk_test_… for a fake or a sandbox)", field=name
        )
    key = settings.stripe_api_key.get_secret_value()
    if not key.startswith(("sk_test_", "rk_test_", "sk_live_", "rk_live_")) or not (
        key.isascii() and key.isprintable()
    ):
        raise SettingsError(
            f"{name} is no secret key: it starts with sk_test_, rk_test_, sk_live_ or rk_live_", field=name
        )
    base = settings.stripe_api_base or _STRIPE_API
    parts = _origin(base, "COUNTERFOIL_STRIPE_API_BASE")
    live = key.startswith(("sk_live_", "rk_live_"))
    if live and parts.hostname in _LOOPBACK:
        raise SettingsError(
            f"{name} is a live key but the API base is {parts.hostname}: use a test key there", field=name
        )
    return StripeApi(key, base), live


def email_provider(settings: Settings) -> Provider:
    """SMTP or Resend, for kind `email`. Raises SettingsError naming the setting and the fix."""
    name = "COUNTERFOIL_EMAIL_URL"
    if settings.email_url is None:
        raise SettingsError(f"{name} is not set: write {_EMAIL_FORMS}", field=name)
    parts = urlsplit(settings.email_url.get_secret_value())
    if parts.scheme in ("smtp", "smtps"):
        server = _smtp_server(parts, name)
        return SmtpMail(server, sender=settings.email_sender, deadline_seconds=settings.provider_deadline)
    if parts.scheme in ("resend+https", "resend+http"):
        if not parts.username:
            raise SettingsError(f"{name} holds no API key: write resend+https://KEY@host", field=name)
        base = f"{parts.scheme.removeprefix('resend+')}://{parts.netloc.rpartition('@')[2]}"
        _origin(base, name)
        return ResendMail(
            base, unquote(parts.username), sender=settings.email_sender, deadline_seconds=settings.provider_deadline
        )
    raise SettingsError(f"{name} starts with {parts.scheme!r}: write {_EMAIL_FORMS}", field=name)


def _smtp_server(parts: SplitResult, name: str) -> Server:
    starttls = parse_qs(parts.query).get("starttls", ["false"])[-1].lower()
    if starttls not in ("true", "false") or (parts.scheme == "smtps" and starttls == "true"):
        raise SettingsError(f"{name}: starttls is true or false, and needs smtp://", field=name)
    tls = "implicit" if parts.scheme == "smtps" else "starttls" if starttls == "true" else "none"
    host, port = _host(parts, name)
    if parts.username and tls == "none" and host not in _LOOPBACK:
        raise SettingsError(f"{name} would send a password in clear: use smtps:// or add ?starttls=true", field=name)
    return Server(
        host,
        port or _PORTS[tls],
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        tls,
    )


def _origin(url: str, name: str) -> SplitResult:
    """The URL as an origin: http only towards loopback, since every request carries a secret key."""
    parts = urlsplit(url)
    host, _ = _host(parts, name)
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
        raise SettingsError(f"{name} must be an origin like https://host or http://127.0.0.1:8420, no path", field=name)
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SettingsError(f"{name} would send a secret key in clear to {host}: use https", field=name)
    return parts


def _host(parts: SplitResult, name: str) -> tuple[str, int | None]:
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(f"{name} has a malformed port", field=name) from None
    if not host:
        raise SettingsError(f"{name} names no host", field=name)
    return host, port
