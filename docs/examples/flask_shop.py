"""Flask: one transaction for each request that writes. `flask --app flask_shop run`."""

from __future__ import annotations

import os

from flask import Flask, request
from flask.typing import ResponseReturnValue
from shop import place
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from service.core.errors import DedupeConflict, EffectNotFound, ValidationError
from tasks import EffectResult

app = Flask(__name__)
engine = create_engine(os.environ["COUNTERFOIL_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1))


@app.post("/orders/<number>")
def order(number: str) -> ResponseReturnValue:
    """Committed when the block ends; an exception rolls both back, the order and its charge."""
    with Session(engine) as session, session.begin():
        paid = place(session, number, request.get_json()["amount"])
    return {"charge": paid.id, "created": paid.created}, 202


@app.get("/charges/<charge_id>")
def outcome(charge_id: str) -> ResponseReturnValue:
    """Where it stands now; `get(timeout=…)` would wait."""
    paid = EffectResult(charge_id)
    paid.refresh()
    return {"state": paid.state.value}


@app.errorhandler(ValidationError)
def refused(error: ValidationError) -> ResponseReturnValue:
    """The message names the field and the fix, and never quotes what was sent."""
    return {"error": error.message, "field": error.field}, 400


@app.errorhandler(DedupeConflict)
def conflict(error: DedupeConflict) -> ResponseReturnValue:
    """The same order number with another amount."""
    return {"error": error.message}, 409


@app.errorhandler(EffectNotFound)
def absent(error: EffectNotFound) -> ResponseReturnValue:
    """Nothing of that id, or not committed yet."""
    return {"error": error.message}, 404
