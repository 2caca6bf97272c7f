"""Serve a bank's API of its customers, which existed before the model and now includes predictions of churn.

    waitress-serve --listen=127.0.0.1:5001 --call flask_api.app:create_app

$BANKCHURN_URL is where the model is served; $CUSTOMERS_DB the SQLite file of customers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, abort, request
from flask_api.churn import Churn, Unavailable
from flask_api.customers import FACTS, Customers
from werkzeug.exceptions import HTTPException

Answer = tuple[Any, int]


def create_app(database: Path | None = None, models: str | None = None) -> Flask:
    """The WSGI application.

    Args:
        database: the file of customers; by default $CUSTOMERS_DB, else `customers.db` here.
        models: the address of the model server; by default $BANKCHURN_URL, else where `estiba up` serves.
    """
    app = Flask(__name__)
    customers = Customers(database or Path(os.environ.get("CUSTOMERS_DB") or "customers.db"))
    churn = Churn(models or os.environ.get("BANKCHURN_URL") or "http://127.0.0.1:8000")
    _register(app, customers, churn)
    app.register_error_handler(HTTPException, lambda error: ({"error": error.description}, error.code or 500))
    app.register_error_handler(Unavailable, lambda error: ({"error": str(error)}, 503))
    return app


def _register(app: Flask, customers: Customers, churn: Churn) -> None:
    @app.get("/")
    def routes() -> Answer:
        """List the routes, for a visitor who follows the address that `estiba up` prints."""
        rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
        methods = ("GET", "POST")
        listed = [f"{method} {rule.rule}" for rule in rules for method in methods if method in (rule.methods or ())]
        return {"name": "The bank's customers, with predictions of their churn", "routes": sorted(listed)}, 200

    @app.get("/health")
    def health() -> Answer:
        """The health of this API alone: restarting it would not help if the model server is down."""
        return {"status": "ok"}, 200

    @app.get("/ready")
    def ready() -> Answer:
        return ({"model": "ready"}, 200) if churn.ready() else ({"model": "unavailable"}, 503)

    @app.get("/customers")
    def every() -> Answer:
        return {"customers": customers.all()}, 200

    @app.post("/customers")
    def add() -> Answer:
        try:
            number = customers.add(_body())
        except ValueError as error:
            return {"error": str(error)}, 400
        return {"id": number}, 201

    @app.get("/customers/<int:number>")
    def one(number: int) -> Answer:
        found = customers.find(number)
        return (found, 200) if found else ({"error": f"There is no customer {number}."}, 404)

    @app.get("/customers/<int:number>/churn")
    def leaving(number: int) -> Answer:
        found = customers.find(number)
        if found is None:
            return {"error": f"There is no customer {number}."}, 404
        status, answer = churn.predict({name: found[name] for name in FACTS})
        return answer, status

    @app.post("/predict")
    def predict() -> Answer:
        status, answer = churn.predict(_body())
        return answer, status


def _body() -> dict[str, Any]:
    """The JSON object in a request; without one, the answer is 400 or 415."""
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "The body must be a JSON object.")
    return body
