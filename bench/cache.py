"""The cache of answers beside the bare server: rate, p99 and processor time when nothing, half and all is known.

    python bench/cache.py [--seconds 3] [--rounds 3] [--connections 8] [--json FILE]

The model is the one of `run.py`, 100 trees of depth 10 on the kernel; and the same behind the python engine, where a
run costs milliseconds. One worker, memory as the store. The bare server and the caching one run side by side and are
asked in turns, with the same bodies: 500 rows that go round (all known after a warm-up), rows that never come twice
(none known), and both by turns (half known).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec
from models import NUMBERS, TEXTS, rows
from run import write

import estiba
from estiba.core.guard import process_stat

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent / "tests" / "support" / "toy_server.py"
MIXES = ("0 %", "50 %", "100 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/cache-DATE.json")
    options = parser.parse_args()
    X, y, data = rows()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in ("onnx", "python"):
            figures[engine] = measure(engine, X, y, Path(folder) / engine, options)
    write({"data": data, "figures": figures}, options.json, "cache", table(figures))


def measure(engine: str, X: Any, y: Any, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rates, latencies and processor times by server and mix."""
    estiba.pack(forest(X, y), X, name="bankchurn", registry=folder / "registry", engine=engine, quiet=True)
    cache = {"cache": {"enabled": True, "models": ["bankchurn"], "ttl": 600, "max_bytes": 256 * 2**20}}
    bodies = {mix: write_bodies(X, folder / f"bodies-{mix[:-2]}", mix) for mix in MIXES}
    figures: dict[str, Any] = {name: {mix: [] for mix in MIXES} for name in ("bare", "cache")}
    for _ in range(options.rounds):
        for mix in MIXES:  # fresh servers, or what was never asked would be known by the second round
            with server(folder, {}) as bare, server(folder, cache) as caching:
                for name, (url, pid) in (("bare", bare), ("cache", caching)):
                    if mix == "100 %":
                        load(url, bodies[mix], 1.0, options.connections)
                    figures[name][mix].append(loaded(url, pid, bodies[mix], options))
    return figures


def forest(X: Any, y: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = ColumnTransformer([("text", OneHotEncoder(), TEXTS), ("number", StandardScaler(), NUMBERS)])
    return make_pipeline(steps, RandomForestClassifier(n_estimators=100, max_depth=10, random_state=0)).fit(X, y)


def write_bodies(X: Any, file: Path, mix: str) -> Path:
    """Bodies, one a line. Those of new rows are enough for a measurement at any rate."""
    records = json.loads(X.head(500).to_json(orient="records"))
    count = 500 if mix == "100 %" else 400_000
    with file.open("w") as lines:
        for number in range(count):
            record = dict(records[number % 500])
            if mix == "0 %" or (mix == "50 %" and number % 2):
                record["Balance"] = number + 0.25
            lines.write(json.dumps(record) + "\n")
    return file


@contextmanager
def server(folder: Path, gateway: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The URL of a server, and the process of its worker."""
    spec = {
        "registry": str(folder / "registry"), "models": ["bankchurn"], "trust": True, "gateway": gateway,
        "settings": {"access_log": 0.0},
    }  # fmt: skip
    command = [sys.executable, str(SERVER), msgspec.json.encode(spec).decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield url, int(worker)
    finally:
        process.terminate()
        process.wait(15)


def loaded(url: str, pid: int, bodies: Path, options: argparse.Namespace) -> dict[str, float]:
    before, began = metrics(url), cpu_seconds(pid)
    seen = load(url, bodies, options.seconds, options.connections)
    used = cpu_seconds(pid) - began
    after = metrics(url)
    hits, entries = (after.get(name, 0.0) - before.get(name, 0.0) for name in (HITS, ENTRIES))
    size = after.get("estiba_cache_bytes", 0.0) - before.get("estiba_cache_bytes", 0.0)
    memory = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    count = max(1, seen["requests"])
    return {
        "rate": seen["requests"] / seen["seconds"], "p99_ms": seen["p99_us"] / 1000, "cpu_us": used / count * 1e6,
        "hits": hits / count, "counted": size / entries if entries else 0, "held": memory / entries if entries else 0,
        "failed": seen["bad_status"] + seen["broken"],
    }  # fmt: skip


HITS = 'estiba_cache_requests_total{model="bankchurn",result="hit"}'
ENTRIES = "estiba_cache_entries"


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def cpu_seconds(pid: int) -> float:
    return process_stat(pid).cpu_ticks / os.sysconf("SC_CLK_TCK")


def load(url: str, bodies: Path, seconds: float, connections: int) -> dict[str, float]:
    script = ["-s", str(HERE / "rotate.lua"), f"{url}/models/bankchurn/predict", "--", str(bodies)]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", *script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return figures


def table(figures: dict[str, Any]) -> str:
    """The medians of all rounds, as Markdown."""
    lines = [
        "| engine | known | bare req/s | cache req/s | ratio | p99 ms, bare / cache | CPU µs, bare / cache "
        "| hits | bytes a row, counted / held |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine, servers in figures.items():
        for mix in MIXES:
            bare, cache = (
                {name: median(each[name] for each in servers[server][mix]) for name in servers[server][mix][0]}
                for server in ("bare", "cache")
            )
            pairs = zip(servers["bare"][mix], servers["cache"][mix], strict=True)
            ratio = median(with_cache["rate"] / without["rate"] for without, with_cache in pairs)
            assert (bare["failed"], cache["failed"]) == (0, 0)
            lines.append(
                f"| {engine} | {mix} | {bare['rate']:,.0f} | {cache['rate']:,.0f} | {ratio:.2f} "
                f"| {bare['p99_ms']:.2f} / {cache['p99_ms']:.2f} | {bare['cpu_us']:.1f} / {cache['cpu_us']:.1f} "
                f"| {cache['hits']:.0%} | {cache['counted']:.0f} / {cache['held']:.0f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
