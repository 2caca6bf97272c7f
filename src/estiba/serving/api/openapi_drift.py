"""The schema of drift in the OpenAPI document. A test compares it with what the report of drift has."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_TIME: Json = {"type": "string", "format": "date-time"}
_NUMBER: Json = {"type": "number"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NAMES: Json = {"type": "array", "items": _TEXT}


def schemas() -> Json:
    """The schemas by name, `Drift` and those that it refers to."""
    versions = {"type": "array", "items": _ref("Version")}
    return {
        "Drift": _object({"model": _TEXT, "versions": versions, "silence": _object(_SILENCE)}),
        "DriftVersion": _object(_VERSION, required=("version", "digest", "state", "waiting_rows", "fields", "history")),
        "DriftField": _object(_FIELD, required=("name", "kind", "state", "sentences", "statistics", "reference")),
        "DriftWindow": _object(_WINDOW, required=("begin", "end", "rows", "compared", "detected", "flagged")),
        "DriftDistribution": _object(_DISTRIBUTION, required=("rows", "bins", "missing", "unseen", "outside")),
    }


def _object(properties: Json, required: tuple[str, ...] = ()) -> Json:
    """An object; by default all of its members are required."""
    return {"type": "object", "required": list(required or properties), "properties": properties}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/Drift{name}"}


def _described(schema: Json, text: str) -> Json:
    return {**schema, "description": text}


_SILENCE: Json = {
    "is_silent": _described({"type": "boolean"}, "No rows in the last hour, where the same hour a week ago had 100."),
    "rows_last_hour": _COUNT,
    "rows_week_ago": _COUNT,
}

_VERSION: Json = {
    "version": _TEXT,
    "digest": _TEXT,
    "state": {"enum": ["ok", "suspected", "drift", "collecting", "too few rows"]},
    "reference": _object(
        {
            "rows": _COUNT,
            "source": {"enum": ["holdout", "sample", "live", "adopted"]},
            "output_source": {"enum": ["holdout", "sample", "live", "adopted", "pending"]},
            "at": _TIME,
            "by": _TEXT,
        },
        required=("rows", "source", "output_source", "at"),
    ),
    "window": _described(_ref("Window"), "The last one that is closed."),
    "waiting_rows": _described(_COUNT, "Rows of the window that is not closed yet."),
    "waiting_since": _TIME,
    "smallest_shift": _described(_NUMBER, "The smallest shift of a number that a window of that size shows."),
    "fields": _described({"type": "array", "items": _ref("Field")}, "Those that drift first."),
    "history": _described({"type": "array", "items": _ref("Window")}, "The oldest first."),
}

_WINDOW: Json = {
    "begin": _TIME,
    "end": _TIME,
    "rows": _COUNT,
    "compared": _described({"type": "boolean"}, "False where it had too few rows."),
    "detected": _described(_NAMES, "Fields and outputs that drift."),
    "flagged": _described(_NAMES, "Those that this window shows."),
    "design_effect": _described(_NUMBER, "How many of its rows count as an independent one."),
    "dropped": _COUNT,
    "values": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": _NUMBER}},
}

_STATISTIC: Json = {
    "name": {"enum": ["ks", "shares", "missing", "unseen", "outside"]},
    "value": _NUMBER,
    "floor": _NUMBER,
    "p": _NUMBER,
    "adjusted": _NUMBER,
}

_FIELD: Json = {
    "name": _TEXT,
    "kind": {"enum": ["number", "text", "timestamp", "levels", "output", "label"]},
    "state": {"enum": ["ok", "suspected", "drift"]},
    "sentences": _described({"type": "object", "additionalProperties": _TEXT}, "For people, by language: en, es."),
    "statistics": {"type": "array", "items": _object(_STATISTIC, required=("name", "value", "floor", "p"))},
    "reference": _ref("Distribution"),
    "severity": {"enum": ["notice", "warning"]},
    "since": _TIME,
    "window": _ref("Distribution"),
    "edges": _described({"type": "array", "items": _NUMBER}, "Of the bins, one fewer than these."),
    "labels": _described(_NAMES, "Of the bins of levels; the last bin holds all others."),
}

_DISTRIBUTION: Json = {
    "rows": _COUNT,
    "bins": _described({"type": "array", "items": _NUMBER}, "Shares of the rows with a value."),
    "missing": _NUMBER,
    "unseen": _NUMBER,
    "outside": _NUMBER,
    "mean": _NUMBER,
}
