"""Settings become providers, or a sentence that names the setting and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.core.effect import Guarantee
from service.core.errors import SettingsError
from service.providers.build import (
    cancel_provider,
    capture_provider,
    charge_provider,
    email_provider,
    refund_provider,
)
from service.providers.ports import Provider
from service.settings import Settings


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "STRIPE_API_KEY"),
        ({"stripe_api_base": "http://127.0.0.1:1"}, "STRIPE_API_KEY"),
        ({"stripe_api_key": "pk_test_1"}, "STRIPE_API_KEY"),
        ({"stripe_api_key": "sk_test_1\n"}, "STRIPE_API_KEY"),
        ({"stripe_api_key": "sk_test_1", "stripe_api_base": "http://stripe.example"}, "STRIPE_API_BASE"),
        ({"stripe_api_key": "sk_test_1", "stripe_api_base": "127.0.0.1:1"}, "STRIPE_API_BASE"),
        ({"stripe_api_key": "sk_test_1", "stripe_api_base": "http://127.0.0.1:none"}, "STRIPE_API_BASE"),
        ({"stripe_api_key": "sk_test_1", "stripe_api_base": "https://host/v1"}, "STRIPE_API_BASE"),
        (
            {"stripe_api_key": "sk_live_1", "stripe_api_base": "http://127.0.0.1:1", "allow_live": True},
            "STRIPE_API_KEY",
        ),
    ],
)
@pytest.mark.parametrize("build", [charge_provider, refund_provider, capture_provider, cancel_provider])
def test_a_wrong_stripe_setting_is_named_and_no_key_is_shown(
    build: Callable[[Settings], Provider], values: dict[str, Any], name: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        build(Settings(**values))
    assert caught.value.field == f"COUNTERFOIL_{name}"
    assert name in caught.value.message
    assert values.get("stripe_api_key", "sk_test_1") not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://re_hunter2@api.resend.example",
        "resend+https://api.resend.example",
        "resend+http://re_hunter2@api.resend.example",
        "smtp://",
        "smtp://host:none",
        "smtp://user:hunter2@mail.example",
        "smtps://mail.example?starttls=true",
        "smtp://mail.example?starttls=maybe",
    ],
)
def test_a_wrong_email_url_is_refused_and_never_shown(url: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        email_provider(Settings(email_url=url))
    assert caught.value.field == "COUNTERFOIL_EMAIL_URL"
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "name", "guarantee"),
    [
        ("smtp://127.0.0.1:2525", "smtp", Guarantee.BLIND),
        ("smtp://user:p%40ss@127.0.0.1", "smtp", Guarantee.BLIND),
        ("smtp://user:pass@mail.example?starttls=true", "smtp", Guarantee.BLIND),
        ("smtps://user:pass@mail.example", "smtp", Guarantee.BLIND),
        ("resend+https://re_1@api.resend.example", "resend", Guarantee.KEYED),
        ("resend+http://re_1@127.0.0.1:8025", "resend", Guarantee.KEYED),
    ],
)
def test_each_form_of_the_email_url_has_its_provider(url: str, name: str, guarantee: Guarantee) -> None:
    provider = email_provider(Settings(email_url=url))
    assert (provider.name, provider.guarantee) == (name, guarantee)


def test_a_test_key_makes_a_charge_provider() -> None:
    provider = charge_provider(Settings(stripe_api_key="sk_test_1", stripe_api_base="http://127.0.0.1:1/"))
    assert (provider.name, provider.guarantee) == ("stripe", Guarantee.KEYED)
