"""Refunds: never more than was taken and not yet given back, and nothing else protects them.

Stripe docs, "Refund and cancel payments". A PaymentIntent succeeds once, but it can be refunded in many parts: asked
twice under two keys, Stripe refunds twice, as long as the money lasts. Only a full refund is refused the second time,
with `charge_already_refunded`.
"""

from __future__ import annotations

from decimal import Decimal

from iso4217 import Currency

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Call, Refused
from fakes.stripe import balance, payment_methods
from fakes.stripe import errors as stripe_errors
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.change import Change
from fakes.stripe.objects import Json
from fakes.stripe.payment_intents import ZERO_DECIMAL, merged

# A refund that has not failed or been called off counts against its charge, from the moment it is asked for.
UNDONE = ("failed", "canceled")
FINISHABLE = ("pending", "requires_action", "succeeded")


def create(call: Call) -> Answer:
    """POST /v1/refunds; without an amount, everything that is left."""
    change = Change.asked_by(call)
    charge = _charge(change, call)
    amount = _checked_amount(charge, call.params.get("amount"))
    refund = stripe_objects.refund(charge, call.params, amount, change.now)
    shown = change.load("payment_method", charge["payment_method"])
    card = payment_methods.held(change.connection, shown).card if shown else None
    begins = change.settings.refund_status or ("pending" if card and card.refund == "pending" else "succeeded")
    begin(change, refund, charge, begins)
    return Answer(200, refund)


def update(call: Call) -> Answer:
    """POST /v1/refunds/{id}: metadata only."""
    change = Change.asked_by(call)
    refund = _refund(change, call)
    before = refund["metadata"]
    refund["metadata"] = merged(before, call.params.get("metadata"))
    change.save(refund)
    change.emit("refund.updated", refund, {"metadata": before})
    return Answer(200, refund)


def cancel(call: Call) -> Answer:
    """POST /v1/refunds/{id}/cancel: only one that waits for the customer."""
    change = Change.asked_by(call)
    refund = _refund(change, call)
    if refund["status"] != "requires_action":
        message = f"You cannot cancel this refund because it has a status of {refund['status']}."
        raise Refused(stripe_errors.error(400, message))
    finish(change, refund, "canceled")
    return Answer(200, refund)


def finish(change: Change, refund: Json, status: str, reason: str = "unknown") -> None:
    """What the bank made of it, minutes or days later; a refund that was said to have succeeded may still fail."""
    before = refund["status"]
    charge = change.load("charge", refund["charge"]) or {}
    refund["status"] = status
    refund.pop("pending_reason", None)
    if status in UNDONE:
        _undo(change, refund, charge, reason if status == "failed" else "merchant_request")
    change.save(refund)
    if status == "failed":
        change.emit("refund.failed", refund, {"status": before})
    change.emit("refund.updated", refund, {"status": before})
    change.emit("charge.refund.updated", refund, {"status": before})


def _refund(change: Change, call: Call) -> Json:
    return change.need("refund", call.path_id or "", "refund", 404)


def _charge(change: Change, call: Call) -> Json:
    """The charge that is meant; it must have taken money. Raises Refused."""
    charge_id, intent_id = call.params.get("charge"), call.params.get("payment_intent")
    if not charge_id and not intent_id:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise Refused(stripe_errors.error(400, message, code="parameter_missing"))
    charge: Json | None
    if intent_id:
        intent = change.need("payment_intent", intent_id, "payment_intent")
        if charge_id and charge_id != intent["latest_charge"]:
            message = f"Charge {charge_id} does not belong to PaymentIntent {intent_id}."
            raise Refused(stripe_errors.error(400, message, param="charge"))
        charge = change.load("charge", intent["latest_charge"])
    else:
        charge = change.need("charge", charge_id or "", "charge")
        intent_id = charge["payment_intent"]
    if charge is None or charge["status"] != "succeeded" or not charge["captured"]:
        message = f"This PaymentIntent ({intent_id}) does not have a successful charge to refund."
        raise Refused(stripe_errors.error(400, message, param="payment_intent"))
    return charge


def _checked_amount(charge: Json, wish: int | None) -> int:
    left: int = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise Refused(stripe_errors.error(400, message, code="charge_already_refunded"))
    if wish is not None and wish > left:
        asked, rest = _in_words(wish, charge["currency"]), _in_words(left, charge["currency"])
        message = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
        raise Refused(stripe_errors.error(400, message, param="amount"))
    return left if wish is None else wish


def _in_words(amount: int, currency: str) -> str:
    """€9.00, 900 JPY: Stripe's messages speak of major units."""
    sign = {"eur": "€", "usd": "$", "gbp": "£"}.get(currency)
    exponent = 0 if currency in ZERO_DECIMAL else (Currency(currency.upper()).exponent or 0)
    plain = f"{Decimal(amount).scaleb(-exponent):,}"
    return f"{sign}{plain}" if sign else f"{plain} {currency.upper()}"


def begin(change: Change, refund: Json, charge: Json, status: str) -> None:
    """The money goes back, unless the bank or the customer is still to be asked."""
    before = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    charge["amount_refunded"] += refund["amount"]
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    refund["status"] = "pending" if status in UNDONE else status
    if refund["status"] == "pending":
        refund["pending_reason"] = "processing"
    if refund["status"] == "requires_action":
        refund["next_action"] = {"type": "display_details", "display_details": _details(change.now)}
    # A refund leaves the balance when it is asked for, whether the customer's bank is quick or slow.
    kind: balance.Kind = "refund" if charge["id"].startswith("ch_") else "payment_refund"
    line = balance.transaction(kind, refund["id"], -refund["amount"], currency=refund["currency"], now=change.now)
    refund["balance_transaction"] = line["id"]
    change.move("refund", charge, refund["amount"], refund["metadata"], refund["id"])
    change.save(line, charge, refund)
    change.emit("charge.refunded", charge, before)
    change.emit("refund.created", refund)
    change.emit("refund.updated", refund)
    if status in UNDONE:
        finish(change, refund, status)


def _details(now: int) -> Json:
    email = {"email_sent": {"email_sent_at": now, "email_sent_to": "customer@example.test"}}
    return {**email, "expires_at": now + 45 * 24 * 3600}


def _undo(change: Change, refund: Json, charge: Json, reason: str) -> None:
    """The money came back: a reversing balance transaction, and a ledger row that undoes the refund's."""
    line = balance.transaction(
        "refund_failure", refund["id"], refund["amount"], currency=refund["currency"], now=change.now
    )
    refund |= {"failure_balance_transaction": line["id"], "failure_reason": reason}
    refund.pop("next_action", None)
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    change.move("refund_failed", charge, refund["amount"], refund["metadata"], refund["id"])
    change.save(line, charge)
