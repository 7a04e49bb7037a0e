"""Checks of what effects are carried out with."""

from __future__ import annotations

from service.cli.checks.check import FIXES, Check
from service.embedded import address
from service.providers.build import charge_provider, email_provider
from service.settings import Settings


def payments(settings: Settings) -> Check:
    """Payments are configured."""
    if settings.stripe_api_key is None and _fake(settings, "stripe"):
        return Check("payments", ok=True, found="the fake of `counterfoil up`: no money moves", meaning="", fix="")
    charge_provider(settings)
    key = settings.stripe_api_key.get_secret_value() if settings.stripe_api_key else ""
    mode = "live" if "_live_" in key[:8] else "test"
    where = settings.stripe_api_base or "Stripe"
    return Check("payments", ok=True, found=f"{mode} key, {where}", meaning="", fix=FIXES["payments"])


def mail(settings: Settings) -> Check:
    """Mail is configured."""
    from service.cli.config import shown

    if settings.email_url is None and _fake(settings, "mail"):
        return Check("mail", ok=True, found="the fake of `counterfoil up`: no letter leaves", meaning="", fix="")
    email_provider(settings)
    return Check("mail", ok=True, found=str(shown(settings.email_url)), meaning="", fix=FIXES["mail"])


def _fake(settings: Settings, kind: str) -> bool:
    """Whether `counterfoil up` runs on this state directory and stands in for a provider."""
    if address.running(settings.state_dir) is None:
        return False
    return (settings.state_dir / "fakes" / kind / "address.json").exists()
