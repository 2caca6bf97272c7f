"""Render a plan as Docker Compose files, and deploy them."""
