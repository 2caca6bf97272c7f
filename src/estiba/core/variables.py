"""Environment variables that one part of Estiba sets and another reads."""

from __future__ import annotations

TRUSTED = "ESTIBA_TRUSTED"
"""Digests of artifacts whose code a server may run, separated by spaces."""
