"""From what was sent to an order: the request of one kind, its key, and when and where it may be carried out.

`options` stands beside the request's own members in the body and in each item of a batch, and is no part of what the
key names: a repeat with other options finds the first effect as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic import ValidationError as PydanticError

from service.api.access import Caller, lacks
from service.api.moment import Moment
from service.core.effect import Order
from service.core.errors import ValidationError
from tasks import cancel, capture, charge, email, refund
from tasks.effect_task import EffectTask
from tasks.rules import sentence

TASKS: Mapping[str, EffectTask] = {task.name: task for task in (charge, email, refund, capture, cancel)}
SCOPES: Mapping[str, str] = {
    "charge": "charges:write",
    "email": "emails:write",
    "refund": "refunds:write",
    "capture": "refunds:write",
    "cancel": "refunds:write",
}
"""What a key must be allowed to do to ask for an effect of a kind."""

COUNTDOWN_SECONDS_MAX = 366 * 86400


class Options(BaseModel):
    """When and where an effect is carried out. All may be left out; `eta` and `countdown` exclude each other."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "anyOf": [{"properties": {"eta": {"type": "null"}}}, {"properties": {"countdown": {"type": "null"}}}]
        },
    )

    eta: Moment | None = Field(
        None, description="not before this moment (RFC 3339, with a time zone)", examples=["2026-12-01T09:00:00Z"]
    )
    countdown: Annotated[float, Field(ge=0, le=COUNTDOWN_SECONDS_MAX, allow_inf_nan=False)] | None = Field(
        None, description="not before so many seconds from now, by the database's clock"
    )
    priority: Annotated[int, Field(ge=0, le=9)] = Field(0, description="9 goes first")
    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$")] | None = Field(
        None, description="the lane, one of COUNTERFOIL_LANES; left out: `email` for letters, `charge` for all others"
    )

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if self.eta is not None and self.countdown is not None:
            raise ValueError("options: send eta or countdown, not both")
        return self


def order_of(task: EffectTask, request: Any, options: Any, *, key: str, caller: Caller) -> Order:
    """A checked order of this caller. Raises ValidationError for what is wrong with it by itself."""
    try:
        chosen = Options.model_validate({} if options is None else options)
    except PydanticError as error:
        raise _of_options(sentence(error)) from None
    return task.order(None, request, dedupe_key=key, tenant=caller.tenant, **chosen.model_dump())


def check_scope(caller: Caller, kind: str) -> None:
    """Raises Problem when this caller may not ask for effects of this kind."""
    if SCOPES[kind] not in caller.scopes:
        raise lacks(SCOPES[kind])


def _of_options(error: ValidationError) -> ValidationError:
    """The same, with the member's whole name."""
    if error.message.startswith("options"):
        return error
    field = "options" if error.field == "kwargs" else f"options.{error.field}"
    told = ValidationError(f"{field}: {error.message.partition(': ')[2] or error.message}", field=field)
    told.found = tuple((f"options.{name}", text) for name, text in error.found)
    return told
