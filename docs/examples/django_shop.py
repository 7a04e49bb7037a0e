"""Django with SQLAlchemy sessions beside its ORM: `python django_shop.py runserver` serves it.

Django's own transactions run on another connection and cannot be joined, so the order is written through SQLAlchemy as
well. What is accepted in a transaction of its own is charged even if the view's ORM transaction rolls back afterwards,
and is lost if the process dies before it: what must agree with the charge belongs into its session.
"""

from __future__ import annotations

import json
import os
import sys

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from shop import place
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from service.core.errors import DedupeConflict, EffectNotFound, ValidationError
from tasks import EffectResult

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "testserver"], SECRET_KEY=os.urandom(16).hex()
    )
    django.setup()

engine = create_engine(os.environ["COUNTERFOIL_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1))


def order(request: HttpRequest, number: str) -> JsonResponse:
    """The order and its charge in one commit."""
    try:
        with Session(engine) as session, session.begin():
            paid = place(session, number, json.loads(request.body)["amount"])
    except ValidationError as error:
        return JsonResponse({"error": error.message, "field": error.field}, status=400)
    except DedupeConflict as error:
        return JsonResponse({"error": error.message}, status=409)
    return JsonResponse({"charge": paid.id, "created": paid.created}, status=202)


def outcome(_: HttpRequest, charge_id: str) -> JsonResponse:
    """Where it stands now."""
    paid = EffectResult(charge_id)
    try:
        paid.refresh()
    except EffectNotFound as error:
        return JsonResponse({"error": error.message}, status=404)
    return JsonResponse({"state": paid.state.value})


urlpatterns = [path("orders/<str:number>", order), path("charges/<str:charge_id>", outcome)]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
