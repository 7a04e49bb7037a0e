"""What the requests of several kinds have in common: strict types, money, metadata, and the charge they act upon."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from service.core.money import check_money
from service.providers.stripe import marks

METADATA_KEYS_MAX = 40  # Stripe allows 50; ten are left for ours
OUR_METADATA = frozenset({marks.EFFECT_ID, marks.CAPTURE_EFFECT_ID, marks.DEDUPE})
"""What tells our objects at the provider apart; a caller who wrote it could make one effect look like another."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > METADATA_KEYS_MAX:
        raise ValueError(f"metadata has {len(value)} keys; the limit is {METADATA_KEYS_MAX}")
    for name, text in value.items():
        if not 1 <= len(name) <= 40 or len(text) > 500:
            raise ValueError("metadata: names have 1 to 40 characters, values up to 500")
        if name in OUR_METADATA:
            raise ValueError(f"metadata: {name} is ours; choose another name")
    return value


def _effect_id(value: str) -> str:
    if not _UUID.match(value):
        raise ValueError("charge must be the id of a charge effect, a UUID; charge.apply_async(…).id is one")
    return str(uuid.UUID(value))


Metadata = Annotated[dict[str, str], AfterValidator(_metadata)]
ChargeId = Annotated[str, AfterValidator(_effect_id)]
"""The id of a charge *effect* in its one spelling, so that the same charge has the same fingerprint."""


class Request(BaseModel):
    """The base of every request: types as given, no unknown fields, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class MoneyRequest(Request):
    """A request that moves money. Limits are Stripe's (API reference: PaymentIntents; Supported currencies)."""

    amount: int
    """Minor units: 4200 is 42.00 eur."""
    currency: str
    """Lowercase ISO-4217."""

    @model_validator(mode="before")
    @classmethod
    def _money(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "amount" in data and "currency" in data:
            check_money(data["amount"], data["currency"])
        return data
