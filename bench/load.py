"""Generate closed-loop load with wrk, which keeps connections alive, sends 500 bodies in turn and counts statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LUA = Path(__file__).resolve().parent / "rotate.lua"


class NotMeasurable(Exception):
    """A peer or a round has no figures, for the reason that the table prints."""


class Refused(NotMeasurable):
    """A server understood enough of a request to call it wrong: it will not change its mind."""


@dataclass(frozen=True)
class Seen:
    """The results of one run of wrk.

    Args:
        requests: answers below 400.
        p50_us, p99_us, max_us: latency in microseconds, of all answers.
        bad: answers above 399, broken connections and time-outs.
    """

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    bad: int


def drive(url: str, bodies: Path, *, connections: int, seconds: float, core: int) -> Seen:
    """Loads `url` for some seconds from one core. Raises NotMeasurable if wrk fails."""
    if not shutil.which("wrk"):
        raise NotMeasurable("wrk is not installed (Debian: apt-get install wrk)")
    span = max(1, round(seconds))
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{span}s", "--timeout", "10s", "-s", str(LUA), url, "--", str(bodies)]
    command = ["taskset", "-c", str(core), *wrk]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=span + 30, check=True)
        last = json.loads(ran.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise NotMeasurable(f"wrk failed: {error}") from error
    wrong, broken = last.pop("bad_status"), last.pop("broken")
    last["requests"] -= wrong  # a server that refuses quickly is not fast
    return Seen(**last, bad=wrong + broken)


def ask(url: str, body: bytes, timeout: float = 10) -> Any:
    """The answer to one body, decoded. Raises as `post` does."""
    return json.loads(post(url, body, timeout))


def post(url: str, body: bytes, timeout: float = 10, *, kind: str = "application/json", back: str = "*/*") -> bytes:
    """The answer, of media type `back`, to one body. Raises NotMeasurable if its status is not 200; OSError if nobody
    answers."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": kind, "Accept": back})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.status != 200:
                raise NotMeasurable(f"status {answer.status}")
            return answer.read()
    except urllib.error.HTTPError as error:
        kind = Refused if error.code in (400, 415, 422) else NotMeasurable
        raise kind(f"status {error.code}: {error.read()[:200].decode(errors='replace')}") from error
