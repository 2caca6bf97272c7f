"""Routes beside predictions: models, health, OpenAPI and documentation, as an ASGI application."""
