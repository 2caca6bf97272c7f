"""Run command-line programs such as docker and kubectl, with a hint for each failure that users are known to meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from estiba.core import shell
from estiba.core.errors import EstibaError, NotFound, Unavailable

MAX_REPORTED_LINES = 20
"""Lines of a program's output, or of a container's log, that an error shows."""


class Hint(NamedTuple):
    """Advice for one failure of a program.

    Args:
        pattern: a regular expression that the program's output matches then, in any case.
        text: what to do. error: the type of the error.
    """

    pattern: str
    text: str
    error: type[EstibaError] = EstibaError


@dataclass(frozen=True)
class CliProgram:
    """A program with a command line, found on PATH.

    Args:
        hints: the first that matches counts. install_hint: what to do where the program is not installed.
        arguments: come first in every command line, such as `--context NAME`.
        environment: is added to this process's own. timeout_seconds: for each command.
    """

    name: str
    hints: Sequence[Hint] = ()
    install_hint: str = "Install it, or put it on PATH."
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    timeout_seconds: float | None = None

    def run(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> shell.Finished:
        """Run one command to its end, whatever its exit code; see `shell.run`.

        Raises:
            NotFound: the program is not installed. EstibaError: it took longer than its timeout.
        """
        try:
            return shell.run(
                [self.name, *self.arguments, *arguments],
                environment={**(self.environment or {}), **(environment or {})},
                timeout=timeout or self.timeout_seconds,
                on_line=on_line,
            )
        except NotFound:
            raise NotFound(f"{self.name} is not installed, or not on PATH.", hint=self.install_hint) from None

    def output(self, *arguments: str, action: str = "") -> str:
        """Run one command and return its standard output.

        Args:
            action: names the command in the error; by default its first argument.

        Raises:
            NotFound: the program is not installed. EstibaError: the command failed.
        """
        done = self.run(*arguments)
        if done.code:
            raise self.failure(f"{self.name} {action or arguments[0]}: {done.said}", done.said)
        return done.output

    def failure(self, message: str, output: str) -> EstibaError:
        """Make the error of a command that failed: its type and its hint depend on what the program printed."""
        hint = self.find_hint(output)
        return EstibaError(message) if hint is None else hint.error(message, hint=hint.text)

    def find_hint(self, output: str) -> Hint | None:
        """Return the first hint that the output of the program calls for."""
        return next((hint for hint in self.hints if re.search(hint.pattern, output, re.IGNORECASE | re.DOTALL)), None)


START_DOCKER = "Start Docker, or set DOCKER_HOST to the address of one that runs."

DOCKER = CliProgram(
    "docker",
    (Hint(r"(connect|running).*daemon|daemon.*(connect|running)", START_DOCKER, Unavailable),),
    "Install Docker with its Compose plugin: https://docs.docker.com/engine/install.",
)
