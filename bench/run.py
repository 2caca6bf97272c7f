"""Estiba beside its peers in one run: the same model, the same requests, one core, interleaved rounds.

    python bench/run.py [--peers a,b] [--rounds 3] [--seconds 3] [--connections 1,8,64] [--json FILE]

Writes bench/results/peers-DATE.json and .md. README.md beside this file says what each figure means.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from load import NotMeasurable, ask, drive
from models import ROOT, prepare
from peer import ENVS, HERE, Peer, names
from servers import Server, adopt_orphans, machine_cpu_seconds, running
from table import markdown

SERVER_CORE, LOAD_CORE = 0, 1
WARM_SECONDS = 1

Item = TypeVar("Item")


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    started()
    model = prepare()
    peers = {name: Peer.read(name) for name in options.peers}
    report = _report(options, model, peers)
    for name, peer in peers.items():
        attempt(report["peers"][name], partial(built, peer, model))
    for turn in range(options.rounds):
        for peer in rotated([p for n, p in peers.items() if "skipped" not in report["peers"][n]], turn):
            figures = report["peers"][peer.name]
            attempt(figures, partial(_round, peer, model, options, figures))
    write(report, options.json, "peers", markdown(report))


def started() -> None:
    """Makes this process fit to measure: it ends its servers whatever happens, and stays off their core."""
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    os.sched_setaffinity(0, {LOAD_CORE})


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = names()
    parser.add_argument("--peers", type=lambda t: t.split(","), default=known, help=f"of {','.join(known)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of load for each round and number of connections")
    parser.add_argument("--connections", type=lambda t: [int(n) for n in t.split(",")], default=[1, 8, 64])
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/peers-DATE.json")
    options = parser.parse_args(argv)
    if unknown := set(options.peers) - set(known):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def _report(options: argparse.Namespace, model: Path, peers: dict[str, Peer]) -> dict[str, Any]:
    return {
        "date": now(),
        "machine": machine(),
        "commit": commit(),
        "data": (model / "origin").read_text(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "peers": {n: {"title": p.title, "source": p.source, "rounds": []} for n, p in peers.items()},
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
    """Describe this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit measured, with + where files of the product differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run([*git, "status", "--short", "src"], capture_output=True, text=True, check=True).stdout
    return head.strip() + ("+" if changed else "")


def attempt(figures: dict[str, Any], work: Callable[[], dict[str, Any] | None]) -> None:
    """Does `work`; a peer that cannot be measured is left out from here on, with its reason."""
    try:
        figures.update(work() or {})
    except NotMeasurable as error:
        figures["skipped"] = str(error)
        print(f"bench: {figures['title']}: left out: {error}", file=sys.stderr)


def built(peer: Peer, model: Path) -> dict[str, Any]:
    """Makes a peer ready to start, and what is known of it before that."""
    peer.build()
    peer.prepared(model)
    return {"versions": peer.versions, "environment_mb": peer.size_mb()}


def rotated(peers: list[Item], turn: int) -> list[Item]:
    """Another peer begins each round, so that nobody always follows the same neighbour."""
    turn %= max(1, len(peers))
    return peers[turn:] + peers[:turn]


def _round(peer: Peer, model: Path, options: argparse.Namespace, figures: dict[str, Any]) -> None:
    bodies = peer.bodies(model)
    with running(peer, model, core=SERVER_CORE, log=ENVS / f"{peer.name}.log") as server:
        if "difference" not in figures:
            figures["difference"] = _difference(peer, server, model)
        drive(server.url, bodies, connections=8, seconds=WARM_SECONDS, core=LOAD_CORE)
        loads = {str(n): measure(server, bodies, n, options.seconds) for n in options.connections}
        rss, pss = server.memory_mb()
    figures["rounds"].append({"cold_start_s": server.cold_start_s, "rss_mb": rss, "pss_mb": pss, "loads": loads})
    rates = ", ".join(f"{n} connections {seen['rps']:,.0f}/s" for n, seen in loads.items())
    print(f"bench: round {len(figures['rounds'])}: {peer.title}: {rates}", file=sys.stderr)


def _difference(peer: Peer, server: Server, model: Path) -> float | None:
    """The largest difference to scikit-learn over all requests, each of which must be answered with 200."""
    expected = json.loads((model / "expected.json").read_text())
    answers = [ask(server.url, body) for body in peer.bodies(model).read_bytes().splitlines()]
    if not peer.answer:
        return None
    return max(float(abs(peer.probability(a) - e)) for a, e in zip(answers, expected, strict=True))


def measure(server: Server, bodies: Path, connections: int, seconds: float) -> dict[str, float]:
    """Rate, latency and CPU time of a server under load."""
    cpu, (busy, stolen), own, start = server.cpu_seconds(), machine_cpu_seconds(), _own_cpu(), time.monotonic()
    seen = drive(server.url, bodies, connections=connections, seconds=seconds, core=LOAD_CORE)
    cpu = server.cpu_seconds() - cpu
    busy_after, stolen_after = machine_cpu_seconds()
    others = (busy_after - busy) - cpu - (_own_cpu() - own)
    if not seen.requests:
        raise NotMeasurable(f"no answer at {connections} connections in {seconds} s")
    return {
        "rps": seen.requests / seen.seconds,
        "p50_ms": seen.p50_us / 1e3,
        "p99_ms": seen.p99_us / 1e3,
        "max_ms": seen.max_us / 1e3,
        "cpu_us": cpu / seen.requests * 1e6,
        "requests": seen.requests,
        "bad": seen.bad,
        "other_load": (others + stolen_after - stolen) / (time.monotonic() - start),
    }


def _own_cpu() -> float:
    """CPU seconds of this process and of the load generators that it has waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def write(report: dict[str, Any], target: Path | None, kind: str, text: str) -> None:
    """Writes a report as JSON, with its date and machine, and its table beside it; prints the table."""
    report = {"date": now(), "commit": commit(), "machine": machine(), **report}
    target = target or HERE / "results" / f"{kind}-{report['date'][:19].replace(':', '')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    target.with_suffix(".md").write_text(text)
    print(text)
    print(f"bench: written to {target} and {target.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
