"""Rules about containers that exited: killed for their memory, or ended with an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_KILLED = 137
"""The exit code after SIGKILL."""


class OutOfMemory(Rule):
    code = "out-of-memory"
    severity = "error"
    title = "The kernel killed the container because it used more memory than its limit."
    reason = "Every request that was being answered is lost, and the next one of the same size does it again."
    example: ClassVar = {"docker inspect": '"OOMKilled": true, "ExitCode": 137\n'}
    remedy = "Raise the limit, or load less: fewer workers, a smaller model, rows in smaller batches."
    shown_by = "test_a_container_killed_for_its_memory"
    explains_exit = True

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        state = container.table("State")
        memory = int(container.number("HostConfig", "Memory"))
        limit = f" of {memory / 2**20:.0f} MB" if memory else ""
        fix = f"Raise it (mem_limit: {max(memory * 2 // 2**20, 256)}m), or load less: fewer workers, a smaller model."
        if state.get("OOMKilled"):
            message = f"It was killed because it used more memory than its limit{limit}."
            yield cls.finding(container.at, message, fix)
        elif not container.runs and state.get("ExitCode") == _KILLED and memory:
            message = f"It was killed (exit code {_KILLED}), probably because it reached its memory limit{limit}."
            yield cls.finding(container.at, message, fix)


class Crashed(Rule):
    code = "crashed"
    severity = "error"
    title = "The container ended with an error, or does so after each start."
    reason = "The service is down. With a restart policy it may look up between two crashes."
    example: ClassVar = {"docker ps": "Restarting (1) 5 seconds ago\n"}
    remedy = "Read the end of its log: `docker logs NAME`."
    shown_by = "test_what_a_program_says_before_it_ends"

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if not container.crashed:
            return
        restarts = int(container.number("RestartCount"))
        lines = [line.strip() for line in container.log.splitlines() if line.strip()]
        after = f" after {restarts} restarts" if restarts else ""
        last = f"the end of its log: {lines[-1][:200].rstrip('.')}" if lines else "it printed nothing"
        message = f"It ended with exit code {container.part('State', 'ExitCode')}{after}; {last}."
        yield cls.finding(container.at, message, f"Read its log: docker logs {container.name}")
