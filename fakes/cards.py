"""What each test payment method does when it is charged (Stripe docs, "Testing", and "Decline codes")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_TRY_AGAIN = "try_again_later"
_DO_NOT = "do_not_try_again"
_CONFIRM = "confirm_card_data"


@dataclass(frozen=True, slots=True)
class Decline:
    """The codes and words of a refused charge."""

    code: str
    decline_code: str | None
    message: str
    advice_code: str | None = _TRY_AGAIN


@dataclass(frozen=True, slots=True)
class Card:
    """One card: how it looks and how it ends."""

    brand: str = "visa"
    last4: str = "4242"
    decline: Decline | None = None
    authentication: Literal["never", "always", "unless_set_up"] = "never"


GENERIC = Decline("card_declined", "generic_decline", "Your card was declined.")
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
    None,
)

_GOOD = Card()
_NAMED = {
    "pm_card_visa": _GOOD,
    "pm_card_visa_debit": Card("visa", "5556"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_mastercard_debit": Card("mastercard", "8210"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_discover": Card("discover", "1117"),
    "pm_card_chargeDeclined": Card(last4="0002", decline=GENERIC),
    "pm_card_chargeDeclinedInsufficientFunds": Card(
        last4="9995", decline=Decline("card_declined", "insufficient_funds", "Your card has insufficient funds.")
    ),
    "pm_card_chargeDeclinedLostCard": Card(
        last4="9987", decline=Decline("card_declined", "lost_card", "Your card was declined.", _DO_NOT)
    ),
    "pm_card_chargeDeclinedStolenCard": Card(
        last4="9979", decline=Decline("card_declined", "stolen_card", "Your card was declined.", _DO_NOT)
    ),
    "pm_card_chargeDeclinedFraudulent": Card(
        last4="0019", decline=Decline("card_declined", "fraudulent", "Your card was declined.", _DO_NOT)
    ),
    "pm_card_chargeDeclinedExpiredCard": Card(
        last4="0069", decline=Decline("expired_card", None, "Your card has expired.", _DO_NOT)
    ),
    "pm_card_chargeDeclinedIncorrectCvc": Card(
        last4="0127", decline=Decline("incorrect_cvc", None, "Your card's security code is incorrect.", _CONFIRM)
    ),
    "pm_card_chargeDeclinedProcessingError": Card(
        last4="0119",
        decline=Decline("processing_error", None, "An error occurred while processing your card. Try again later."),
    ),
    "pm_card_chargeCustomerFail": Card(last4="0341", decline=GENERIC),
    "pm_card_authenticationRequired": Card(last4="3184", authentication="always"),
    "pm_card_authenticationRequiredOnSetup": Card(last4="3155", authentication="always"),
    "pm_card_authenticationRequiredSetupForOffSession": Card(last4="3155", authentication="unless_set_up"),
}


def find(payment_method: str) -> Card | None:
    """The card behind an id; None when Stripe knows no such payment method.

    Test names may carry the brand (`pm_card_visa_chargeDeclined`). Any other `pm_…` stands for a saved, good card.
    """
    if payment_method.startswith("pm_card_"):
        unbranded = re.sub(r"^pm_card_visa_(?=charge)", "pm_card_", payment_method)
        return _NAMED.get(unbranded)
    return _GOOD if re.fullmatch(r"pm_\w{1,250}", payment_method) else None
