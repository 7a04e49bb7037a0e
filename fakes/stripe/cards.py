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
    """One card or bank account: how it looks, how a charge of it ends, and how a refund does."""

    brand: str = "visa"
    last4: str = "4242"
    decline: Decline | None = None
    authentication: Literal["never", "always", "unless_set_up"] = "never"
    attaches: bool = False  # even though it is declined when it is charged
    refund: Literal["succeeds", "pending", "fails_later"] = "succeeds"
    type: Literal["card", "us_bank_account", "sepa_debit"] = "card"

    @property
    def slow(self) -> bool:
        """Whether the bank answers days later: the PaymentIntent is `processing` until then."""
        return self.type != "card"


GENERIC = Decline("card_declined", "generic_decline", "Your card was declined.")
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
    None,
)


def _bank_decline(code: str, message: str) -> Decline:
    return Decline(code, None, message, None)


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
    # "Attaching this card to a Customer object succeeds, but attempts to charge the customer fail."
    "pm_card_chargeCustomerFail": Card(last4="0341", decline=GENERIC, attaches=True),
    "pm_card_authenticationRequired": Card(last4="3184", authentication="always"),
    "pm_card_authenticationRequiredOnSetup": Card(last4="3155", authentication="always"),
    "pm_card_authenticationRequiredSetupForOffSession": Card(last4="3155", authentication="unless_set_up"),
    # Refunds: the one begins as pending and succeeds later, the other begins as succeeded and fails later.
    "pm_card_pendingRefund": Card(last4="7726", refund="pending"),
    "pm_card_refundFail": Card(last4="5126", refund="fails_later"),
    # ACH Direct Debit. What the bank says in the end is the default of POST /_fake/intents/{id}/finish.
    "pm_usBankAccount_success": Card("", "6789", type="us_bank_account"),
    "pm_usBankAccount_processing": Card("", "1116", type="us_bank_account"),
    "pm_usBankAccount_accountClosed": Card(
        "",
        "1113",
        type="us_bank_account",
        decline=_bank_decline("account_closed", "The customer's bank account has been closed."),
    ),
    "pm_usBankAccount_noAccount": Card(
        "",
        "1116",
        type="us_bank_account",
        decline=_bank_decline("no_account", "The customer's bank account could not be located."),
    ),
    "pm_usBankAccount_insufficientFunds": Card(
        "",
        "2227",
        type="us_bank_account",
        decline=_bank_decline(
            "insufficient_funds", "The customer's account has insufficient funds to cover this payment."
        ),
    ),
    "pm_usBankAccount_debitNotAuthorized": Card(
        "",
        "3335",
        type="us_bank_account",
        decline=_bank_decline(
            "debit_not_authorized", "The customer has notified their bank that this payment was unauthorized."
        ),
    ),
    # SEPA Direct Debit, for payments in euro.
    "pm_success_de": Card("", "3201", type="sepa_debit"),
    "pm_successDelayed_de": Card("", "3202", type="sepa_debit"),
    "pm_failed_de": Card(
        "", "3203", type="sepa_debit", decline=_bank_decline("payment_method_provider_decline", "The payment failed.")
    ),
    "pm_failedDelayed_de": Card(
        "", "3204", type="sepa_debit", decline=_bank_decline("payment_method_provider_decline", "The payment failed.")
    ),
}
BLUEPRINTS = ("pm_card_", "pm_usBankAccount_", "pm_success_", "pm_successDelayed_", "pm_failed_", "pm_failedDelayed_")


def is_blueprint(name: str) -> bool:
    """Whether a name is a test payment method, of which each use makes a new one."""
    return name.startswith(BLUEPRINTS)


def blueprint(name: str) -> Card | None:
    """The card behind a test name; names may carry the brand (`pm_card_visa_chargeDeclined`)."""
    return _NAMED.get(re.sub(r"^pm_card_visa_(?=charge)", "pm_card_", name))


def assumed(name: str) -> Card | None:
    """The card behind an id that nobody created: a good one, where the account is not strict."""
    return _GOOD if re.fullmatch(r"pm_\w{1,250}", name) and not is_blueprint(name) else None
