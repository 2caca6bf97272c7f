"""Times and limits of health checks and restarts, the same on every target."""

from __future__ import annotations

STARTED_SECONDS = 10
"""Time for which a service without a health check has to keep running to count as started."""

BACKOFF_RESET_SECONDS = 60
"""Time for which a restarted service has to keep running until its backoff begins again at the shortest pause."""

HEALTH_INTERVAL_SECONDS = 10
"""Pause between health checks of a healthy service on one machine. Kubernetes probes have intervals of their own."""

HEALTH_TIMEOUT_SECONDS = 4
"""Time within which a service has to answer a health check."""

HEALTH_COMMAND_TIMEOUT_SECONDS = 10
"""Time that the program of a health check gets: its own start takes seconds where the processors are busy."""

MAX_HEALTH_FAILURES = 3
"""Failed health checks in a row until a healthy service counts as unhealthy."""
