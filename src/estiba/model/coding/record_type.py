"""Build a Struct type from a signature that decodes a valid row directly to its codes: the fast way of the coder."""

from __future__ import annotations

import enum
import functools
import math
import operator
import types
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from estiba.model.schema.signature import MAX_INTEGER, Field, Scalar, Signature
from estiba.model.schema.values import level_types

Record = msgspec.Struct


class _Level(float, enum.Enum):
    """A category level that *is* its code: it decodes from the level and packs as the code."""

    def __new__(cls, code: float, level: Scalar) -> _Level:
        member = float.__new__(cls, code)
        member._value_ = level
        return member


def is_enum(field: Field) -> bool:
    """Check that msgspec can decode the levels: it takes enumerations of strings alone or of integers alone."""
    if field.unseen != "error" or {type(level) for level in field.levels} not in ({str}, {int}):
        return False
    return all(isinstance(level, str) or abs(level) < 2**63 for level in field.levels)


def is_odd(field: Field) -> bool:
    """Check that msgspec has no type that accepts exactly the values of the field."""
    if field.kind == "timestamp":
        return field.minimum is not None or field.maximum is not None
    return field.kind == "category" and field.unseen == "error" and not is_enum(field)


class _Odd(float):
    """The code of a value that `code_hook` checks. Subclasses, one per field, check it."""

    @staticmethod
    def judge(value: object) -> float | str:
        raise NotImplementedError


def code_hook(kind: type, value: object) -> float:
    """The `dec_hook` of a decoder of a coder's records: checks values that msgspec itself cannot.

    Raises:
        ValueError: the message is the reason; msgspec turns it into a ValidationError.
    """
    if not issubclass(kind, _Odd):
        raise NotImplementedError(f"{kind} is no type of a coder.")
    code = kind.judge(value)
    if isinstance(code, str):
        raise ValueError(code)
    return kind(code)


def record_type(signature: Signature, code: Callable[[Field, object], float | str]) -> type[Record]:
    definitions: list[Any] = []
    rename = {}
    for i, field in enumerate(signature.fields):
        rename[f"f{i}"] = field.name
        kind = _odd_type(field, code) if is_odd(field) else _python_type(field)
        definitions.append((f"f{i}", kind | None, None) if field.nullable else (f"f{i}", kind))
    for i, name in enumerate(signature.keep):  # behind the fields, so that these have their positions in any case
        rename[f"k{i}"] = name
        definitions.append((f"k{i}", str | int | float | bool | None, None))
    # A key that is the column's name in training has to reach the careful way, which knows both names.
    ignores = signature.extra == "ignore" and all(field.column is None for field in signature.fields)
    return msgspec.defstruct(
        "Record",
        definitions,
        rename=rename,
        kw_only=True,
        forbid_unknown_fields=not ignores,
        gc=False,
        frozen=True,
    )


def _odd_type(field: Field, code: Callable[[Field, object], float | str]) -> Any:
    judge = staticmethod(functools.partial(code, field))
    return types.new_class(f"Odd{field.kind}", (_Odd,), exec_body=lambda names: names.update(judge=judge))


def _python_type(field: Field) -> Any:
    match field.kind:
        case "number":
            return _ranged(float, field.minimum, field.maximum)
        case "integer":
            low = max(-MAX_INTEGER, -math.inf if field.minimum is None else field.minimum)
            high = min(MAX_INTEGER, math.inf if field.maximum is None else field.maximum)
            return _ranged(int, math.ceil(low), math.floor(high))
        case "boolean":
            return bool
        case "category" if is_enum(field):
            members = [(f"L{i}", (float(i), level)) for i, level in enumerate(field.levels)]
            return _Level(field.name, members)  # type: ignore[arg-type] # an enumeration made by a call
        case "category":
            return functools.reduce(operator.or_, level_types(field))
        case "timestamp":
            return datetime
        case _:
            return str if field.max_length is None else Annotated[str, msgspec.Meta(max_length=field.max_length)]


def _ranged(kind: type, low: float | None, high: float | None) -> Any:
    limits: dict[str, Any] = {k: v for k, v in (("ge", low), ("le", high)) if v is not None}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind
