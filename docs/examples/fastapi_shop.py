"""FastAPI with an asynchronous session: the call is awaited. `uvicorn fastapi_shop:app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from shop import Order
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from service.core.errors import CounterfoilError, DedupeConflict, EffectNotFound
from tasks import EffectResult, charge

app = FastAPI()
engine = create_async_engine(
    os.environ["COUNTERFOIL_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
)
_STATUS = {DedupeConflict: 409, EffectNotFound: 404}


class Basket(BaseModel):
    """What the shop's page sends."""

    amount: int


async def transaction() -> AsyncIterator[AsyncSession]:
    """One transaction for the request: committed before the answer goes out (`scope="function"`)."""
    async with AsyncSession(engine) as session, session.begin():
        yield session


@app.post("/orders/{number}", status_code=202)
async def order(
    number: str, basket: Basket, session: Annotated[AsyncSession, Depends(transaction, scope="function")]
) -> dict[str, object]:
    """The order and its charge in one commit."""
    paid = await charge.apply_async(
        kwargs={"amount": basket.amount, "currency": "eur", "payment_method": "pm_card_visa"},
        dedupe_key=f"order:{number}:charge",
        session=session,
    )
    if paid.created:
        session.add(Order(number=number, amount=basket.amount, charge_id=paid.id))
    return {"charge": paid.id, "created": paid.created}


@app.get("/charges/{charge_id}")
async def outcome(charge_id: str, wait: float = 0.0) -> dict[str, object]:
    """Waits up to `wait` seconds without holding the event loop."""
    paid = EffectResult(charge_id)
    try:
        return await paid.get_async(timeout=min(wait, 30.0))
    except TimeoutError:
        return {"state": paid.state.value}


@app.exception_handler(CounterfoilError)
async def refused(_: Request, error: Exception) -> JSONResponse:
    """Each error names its field and its fix."""
    assert isinstance(error, CounterfoilError)  # noqa: S101 - registered for this type
    return JSONResponse({"error": error.message, "field": error.field}, _STATUS.get(type(error), 400))
