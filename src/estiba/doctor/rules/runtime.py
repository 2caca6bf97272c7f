"""What a container's own words and Docker's say is wrong with it. Pure: everything that was asked is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from estiba.doctor.catalogue import Finding, Location, finding
from estiba.doctor.read.dockerfile_stages import substitute
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.rules.base_images import unpinned
from estiba.doctor.rules.secrets import NAME, WEAK

_ADDRESS = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d+)")
_GONE = re.compile(
    r"(?:exec: \"?(curl|wget|nc)\"?: executable file not found|(?:^|[\s:/])(curl|wget|nc): (?:command )?not found)",
    re.M,
)
_DENIED = re.compile(r"Permission denied:? ?['\"]?([^'\"\n]*)['\"]?", re.I)
_ERRNO_13 = re.compile(r"\[Errno 13\] Permission denied: ?['\"]?([^'\"\n]*)['\"]?")
_ABSENT = re.compile(
    r"(?:No such file or directory: ['\"]([^'\"\n]+)['\"]|Load model from (\S+) failed.{0,40}(?:exist|No such file))"
)
_MODULE = re.compile(r"ModuleNotFoundError: No module named ['\"]([\w.]+)['\"]")
_LIBRARY = re.compile(r"(?:OSError|ImportError): (\S+\.so[\w.]*): cannot open shared object file")
_PICKLED = re.compile(r"unpickle estimator (\w+) from version ([\w.]+) when using version ([\w.]+)")
_BIG = 1_000_000_000


@dataclass(frozen=True)
class InspectedContainer:
    """What was asked of a container.

    Args:
        container, image: as docker inspect gives them.
        log: the last lines that it printed. processes: docker top's table of pid, uid and command.
        sockets: /proc/net/tcp and tcp6 inside it; empty where that could not be read.
    """

    container: dict[str, Any]
    image: dict[str, Any]
    log: str = ""
    processes: str = ""
    sockets: str = ""

    @property
    def name(self) -> str:
        return str(self.container.get("Name") or self.container.get("Id", "")[:12]).lstrip("/")

    @property
    def at(self) -> Location:
        return Location(self.name)

    def part(self, *path: str) -> Any:
        """A value of docker inspect; None where some table on the way is missing."""
        value: Any = self.container
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def table(self, *path: str) -> dict[str, Any]:
        value = self.part(*path)
        return value if isinstance(value, dict) else {}

    def listed(self, *path: str) -> list[Any]:
        value = self.part(*path)
        return value if isinstance(value, list) else []

    def number(self, *path: str) -> float:
        value = self.part(*path)
        return value if isinstance(value, (int, float)) else 0

    @property
    def runs(self) -> bool:
        return bool(self.part("State", "Running"))

    @cached_property
    def environment(self) -> dict[str, str]:
        return _environment(self.listed("Config", "Env"))

    @cached_property
    def listens(self) -> dict[int, set[str]]:
        """The ports on which something listens, with the hosts."""
        found: dict[int, set[str]] = {}
        for address, port in re.findall(r"^\s*\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) \S+ 0A ", self.sockets, re.M):
            found.setdefault(int(port, 16), set()).add(_host(address))
        resolver = {port for port, hosts in found.items() if hosts == {"127.0.0.11"}}  # Docker's own, in user networks
        return {port: hosts for port, hosts in found.items() if port not in resolver}

    @property
    def probes(self) -> list[str]:
        """What the last health checks said, the newest last."""
        return [str(one.get("Output", "")) for one in self.listed("State", "Health", "Log") if isinstance(one, dict)]

    @property
    def check(self) -> str:
        return " ".join(str(word) for word in self.listed("Config", "Healthcheck", "Test"))


def _environment(listed: Any) -> dict[str, str]:
    return dict(str(pair).split("=", 1) for pair in (listed if isinstance(listed, list) else []) if "=" in str(pair))


def _host(address: str) -> str:
    """An address as /proc/net/tcp spells it: bytes in this machine's order, in words of four."""
    if len(address) == 8:
        return ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
    if address == "0" * 32:
        return "::"
    return "::1" if address == "00000000000000000000000001000000" else "other"


def examine_container(seen: InspectedContainer) -> Iterator[Finding]:
    """Every fault that can be told from what was asked."""
    causes = [*_ended(seen), *_said(seen)]
    yield from causes
    if _crashed(seen) and not causes:
        yield from _last_words(seen)
    yield from _health(seen)
    yield from _ports(seen)
    yield from _root(seen)
    yield from _secrets(seen)
    yield from _limits(seen)
    yield from _started(seen)


def _ended(seen: InspectedContainer) -> Iterator[Finding]:
    state = seen.table("State")
    memory = int(seen.number("HostConfig", "Memory"))
    limit = f" of {memory / 2**20:.0f} MB" if memory else ""
    if state.get("OOMKilled"):
        message = f"It was killed because it used more memory than its limit{limit}."
        yield finding("out-of-memory", seen.at, message, _memory_fix(memory))
    elif not seen.runs and state.get("ExitCode") == 137 and memory:
        message = f"It was killed (exit code 137), probably because it reached its memory limit{limit}."
        yield finding("out-of-memory", seen.at, message, _memory_fix(memory))


def _crashed(seen: InspectedContainer) -> bool:
    state = seen.table("State")
    ended = not seen.runs and state.get("ExitCode") not in (0, 137, 143, None) and state.get("Status") == "exited"
    return bool(state.get("Restarting") or ended)


def _last_words(seen: InspectedContainer) -> Iterator[Finding]:
    restarts = int(seen.number("RestartCount"))
    last = next((line.strip() for line in reversed(seen.log.splitlines()) if line.strip()), "it printed nothing")
    times = f" after {restarts} restarts" if restarts else ""
    code = seen.part("State", "ExitCode")
    message = f"It ended with exit code {code}{times}; its last words: {last[:200].rstrip('.')}."
    yield finding("crashed", seen.at, message, f"Read what it said: docker logs {seen.name}")


def _memory_fix(memory: int) -> str:
    more = f"{max(memory * 2 // 2**20, 256)}m"
    return f"Give it more (mem_limit: {more}), or let it load less: fewer workers, a smaller model."


def _said(seen: InspectedContainer) -> Iterator[Finding]:
    """What the program complained of."""
    if found := _PICKLED.search(seen.log):
        message = f"It has scikit-learn {found[3]} and reads a {found[1]} that {found[2]} pickled."
        yield finding(
            "pickle-version", seen.at, message, f"Install scikit-learn=={found[2]}, or train the model again."
        )
    if found := _MODULE.search(seen.log):
        message = f"It imports {found[1]}, which is not installed."
        yield finding("module-missing", seen.at, message, f"Add {found[1].partition('.')[0]} to the requirements.")
    if found := _LIBRARY.search(seen.log):
        message = f"It cannot load {found[1]}, which the image does not have."
        yield finding(
            "system-library-missing", seen.at, message, "Install its package in the image (libgomp.so.1: libgomp1)."
        )
    for found in _ABSENT.finditer(seen.log):
        path = found[1] or found[2]
        if not MODEL_FILE.search(path):
            continue
        message = f"It looks for `{path}`, which is not in the container."
        fix = "COPY it to that place, or mount the folder that holds it; .dockerignore may keep it out."
        yield finding("model-missing", seen.at, message, fix)
        break
    if found := (_DENIED if _crashed(seen) else _ERRNO_13).search(seen.log):
        what = f"`{found[1].strip()}`" if found[1].strip() else "a file"
        user = seen.part("Config", "User") or "root"
        message = f"It runs as user {user}, who has no right to {what}."
        fix = f"Give it to that user: COPY --chown={user}, or RUN chown in the Dockerfile before USER."
        yield finding("permission-denied", seen.at, message, fix)


def _health(seen: InspectedContainer) -> Iterator[Finding]:
    last = next((probe.strip() for probe in reversed(seen.probes) if probe.strip()), "")
    if seen.part("State", "Health", "Status") not in ("unhealthy", "starting") or not last:
        return
    if found := _GONE.search("\n".join(seen.probes)):
        message = f"Its health check calls {found[1] or found[2]}, which the image does not have."
        fix = "Ask with what is there, such as Python's urllib.request, or estiba healthcheck."
        yield finding("curl-missing", seen.at, message, fix)
        return
    asked = [int(port) for port in _ADDRESS.findall(_filled(seen))]
    if asked and seen.listens and not set(asked) & set(seen.listens):
        there = ", ".join(str(port) for port in sorted(seen.listens))
        message = f"Its health check asks port {asked[0]}, but it listens on {there}."
        yield finding("health-port", seen.at, message, f"Ask port {sorted(seen.listens)[0]}.")
    elif seen.part("State", "Health", "Status") == "unhealthy":
        message = f"Its health check fails: {' '.join(last.split())[-200:]}."
        yield finding("unhealthy", seen.at, message, f"Try it by hand: docker exec {seen.name} {_plain(seen.check)}")


def _plain(check: str) -> str:
    return re.sub(r"^(?:CMD-SHELL|CMD)\s+", "", check)[:200]


def _filled(seen: InspectedContainer) -> str:
    return substitute(seen.check, seen.environment)


def _ports(seen: InspectedContainer) -> Iterator[Finding]:
    """Published ports behind which nothing listens, or only for the container itself."""
    if not seen.runs or not seen.listens:
        return
    for key, published in seen.table("NetworkSettings", "Ports").items():
        number, _, protocol = str(key).partition("/")
        if not published or protocol != "tcp" or not number.isdigit():
            continue
        hosts = seen.listens.get(int(number))
        if hosts is None:
            there = ", ".join(str(port) for port in sorted(seen.listens))
            message = f"Its port {number} is published, but it listens on {there}."
            yield finding(
                "port-mismatch", seen.at, message, f"Publish port {sorted(seen.listens)[0]} of the container."
            )
        elif all(host.startswith("127.") or host == "::1" for host in hosts):
            message = f"It listens on port {number} of {min(hosts)} only, so its published port leads nowhere."
            yield finding("loopback-host", seen.at, message, "Let the program listen on 0.0.0.0.")


def _root(seen: InspectedContainer) -> Iterator[Finding]:
    """Root as far as the processes tell: many an image starts as root and steps down."""
    rows = [line.split(None, 2) for line in seen.processes.splitlines()[1:]]
    users = {
        row[1] for row in rows if len(row) == 3 and not row[2].startswith(("/sbin/docker-init", "tini", "docker-init"))
    }
    said = str(seen.part("Config", "User") or "").partition(":")[0]
    if users == {"0"} or (not users and seen.runs and said in ("root", "0")):
        named = f"`{said}` is its user" if said else "nothing names another user"
        message = f"It runs as root, as {named}."
        yield finding("root-user", seen.at, message, "Say USER in the Dockerfile, or user: in the compose file.")


def _secrets(seen: InspectedContainer) -> Iterator[Finding]:
    inside = seen.image.get("Config")
    baked = _environment(inside.get("Env") if isinstance(inside, dict) else None)
    for name, value in seen.environment.items():
        if not NAME.search(name) or not value or value.startswith("/"):
            continue
        if value.lower() in WEAK:
            message = f"It has a password that everybody tries first, in {name}."
            yield finding("default-password", seen.at, message, "Make one with: openssl rand -hex 24.")
        elif baked.get(name) == value:
            message = f"{name} is kept in its image, readable with docker inspect."
            yield finding("secret-in-layer", seen.at, message, "Give it when the container starts; and change it.")


def _limits(seen: InspectedContainer) -> Iterator[Finding]:
    quota = seen.number("HostConfig", "CpuQuota") / (seen.number("HostConfig", "CpuPeriod") or 100_000)
    cpus = seen.number("HostConfig", "NanoCpus") / 1e9 or quota
    threads = seen.environment.get("OMP_NUM_THREADS", "")
    if cpus > 0 and re.fullmatch(r"\d{1,4}", threads) and int(threads) > max(1, -(-cpus // 1)):
        message = f"OMP_NUM_THREADS asks for {threads} threads, and it may use {cpus:g} processors."
        yield finding("threads-over-cpus", seen.at, message, f"Set OMP_NUM_THREADS to {max(1, int(cpus))}.")
    if seen.runs and not seen.number("HostConfig", "Memory"):
        message = "It may take all memory of the machine."
        yield finding("no-limits", seen.at, message, "Give it a limit: mem_limit in the compose file, or --memory.")
    if seen.runs and seen.part("HostConfig", "RestartPolicy", "Name") in ("no", ""):
        message = "Nothing starts it again after a crash or a reboot."
        yield finding("no-restart", seen.at, message, "Add restart: unless-stopped, or --restart unless-stopped.")


def _started(seen: InspectedContainer) -> Iterator[Finding]:
    words = [str(seen.part("Path") or ""), *(str(word) for word in seen.listed("Args"))]
    shell = words[0].rpartition("/")[2] in ("sh", "bash", "ash", "dash") and words[1:2] == ["-c"]
    if (
        shell
        and len(words) > 2
        and not re.search(r"(?:^|[;&\n]\s*)exec\s", words[2])
        and not seen.part("HostConfig", "Init")
    ):
        message = "It is started by a shell, which passes no SIGTERM on to the program."
        yield finding("shell-form", seen.at, message, "Write CMD as a list, or put exec before the command.")
    image = str(seen.part("Config", "Image") or "")
    if image and not image.startswith("sha256:"):
        yield from unpinned(image, seen.at)
    size = seen.image.get("Size")
    if isinstance(size, int) and size > _BIG:
        message = f"Its image has {size / 1e6:.0f} MB."
        yield finding(
            "image-too-big", seen.at, message, "See what is in it: docker history, and estiba doctor on its folder."
        )
