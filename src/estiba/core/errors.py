"""Every error raised on purpose.

    EstibaError
    ├── BadInput          422  rows that do not match a signature, each with a JSON pointer
    ├── BadRequest        400  a body that cannot be read at all
    ├── BadProject             a mistake in estiba.toml, with its path
    ├── BadArtifact            an artifact that is damaged, or its content does not match its manifest
    │   ├── NotTrusted         loading it would run code that is not trusted
    │   └── ParityError        it does not answer as it did in training
    ├── NotFound          404  no such model, version, alias or file
    ├── Conflict          409  two writers used the same name
    ├── MissingExtra           an optional library is not installed
    └── Unavailable       503  not ready, draining or full

`message` says what happened and where; `hint` says what to do. The command line prints both and exits with
`exit_code`; the server answers with `status`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from estiba.core.installation import install_command


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with one value. `pointer` is a JSON pointer (RFC 6901) as a URI fragment, `#/records/0/age`."""

    pointer: str
    detail: str


class EstibaError(Exception):
    """The root of all errors that Estiba raises on purpose."""

    status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadInput(EstibaError):
    """Rows that do not match the signature. `problems` names each wrong value."""

    status = 422
    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(f"{first.pointer}: {first.detail}{more}", hint=hint)


class BadRequest(EstibaError):
    status = 400
    exit_code = 2


class BadProject(EstibaError):
    exit_code = 2


class BadArtifact(EstibaError):
    exit_code = 3


class NotTrusted(BadArtifact):
    pass


class ParityError(BadArtifact):
    pass


class NotFound(EstibaError):
    status = 404
    exit_code = 4


class Conflict(EstibaError):
    status = 409
    exit_code = 5


class MissingExtra(EstibaError):
    """An optional library is needed. The hint says which extra of Estiba brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed.", hint=f"Install it with: {install_command(extra)}")


class Unavailable(EstibaError):
    status = 503
    exit_code = 6
