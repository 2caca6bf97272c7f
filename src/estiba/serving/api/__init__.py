"""The ASGI application of everything but predictions: models, health, OpenAPI and documentation."""
