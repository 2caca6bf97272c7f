"""Environment variables that one part of Estiba sets and another reads."""

from __future__ import annotations

TRUSTED = "ESTIBA_TRUSTED"
"""Digests of artifacts whose code a server may run, separated by spaces."""

STATE = "ESTIBA_STATE"
"""URL of the state store."""

LIMITS_STORE = "ESTIBA_LIMITS_STORE"
"""URL of the store of limits."""

CACHE_STORE = "ESTIBA_CACHE_STORE"
"""URL of the store of the cache."""

KEYS = "ESTIBA_KEYS"
"""`auto`, `required` or `off`: as `--keys` of `estiba serve`."""

SERVER_KEY_FILE = "ESTIBA_SERVER_KEY_FILE"
"""A file with a key that a server admits."""

KEY_FILE = "ESTIBA_KEY_FILE"
"""A file with the key that a client sends."""
