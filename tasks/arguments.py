"""What each call may hold, for type checkers and editors; the models next to the tasks check it when the code runs.

A test compares both: a field that one of them lacks does not pass.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class ChargeArguments(TypedDict):
    """`charge`: amount in minor units (4200 is 42.00 eur), currency in lowercase ISO-4217."""

    amount: int
    currency: str
    payment_method: str
    customer: NotRequired[str | None]
    receipt_email: NotRequired[str | None]
    description: NotRequired[str | None]
    statement_descriptor_suffix: NotRequired[str | None]
    metadata: NotRequired[dict[str, str]]
    off_session: NotRequired[bool]
    capture_method: NotRequired[Literal["automatic", "manual"]]


class EmailArguments(TypedDict):
    """`email`: one letter to one address."""

    to: str
    subject: str
    text: str
    html: NotRequired[str | None]
    sender: NotRequired[str | None]
    policy: NotRequired[Literal["at_least_once", "at_most_once"]]


class RefundArguments(TypedDict):
    """`refund`: `charge` is the id of the charge effect; amount in minor units of its currency."""

    charge: str
    amount: int
    currency: str
    reason: NotRequired[Literal["duplicate", "fraudulent", "requested_by_customer"] | None]
    metadata: NotRequired[dict[str, str]]


class CaptureArguments(TypedDict):
    """`capture`: `charge` is the id of the charge effect; amount in minor units of its currency."""

    charge: str
    amount: int
    currency: str


class CancelArguments(TypedDict):
    """`cancel`: `charge` is the id of the charge effect."""

    charge: str
    reason: NotRequired[Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"] | None]
