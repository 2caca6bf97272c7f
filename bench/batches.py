"""Ten thousand records in one JSON request, and what such requests do to single predictions beside them.

    python bench/batches.py [--peers estiba,fastapi_joblib] [--rounds 3] [--seconds 4] [--json FILE]

Alone: rows per second of requests sent one after the other. Beside: wrk asks for single predictions over 8
connections while one client sends such requests without a pause; p99 of the single ones is shown with and without.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import pandas as pd
from load import NotMeasurable, drive, post
from models import prepare
from peer import ENVS, Peer
from run import LOAD_CORE, SERVER_CORE, attempt, built, rotated, started, write
from servers import Server, running
from table import spread, table

CONNECTIONS = 8
TIMEOUT_SECONDS = 60


def main() -> None:
    options = _options()
    started()
    model = prepare()
    peers = {name: Peer.read(name) for name in options.peers}
    report: dict[str, Any] = {"peers": {n: {"title": p.title, "rounds": []} for n, p in peers.items()}}
    for name, peer in peers.items():
        attempt(report["peers"][name], partial(built, peer, model))
    for turn in range(options.rounds):
        for peer in rotated([p for n, p in peers.items() if "skipped" not in report["peers"][n]], turn):
            figures = report["peers"][peer.name]
            attempt(figures, partial(_round, peer, model, options.seconds, figures))
    write(report, options.json, "batches", _markdown(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=lambda t: t.split(","), default=["estiba", "fastapi_joblib"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/batches-DATE.json")
    return parser.parse_args()


def _round(peer: Peer, model: Path, seconds: float, figures: dict[str, Any]) -> None:
    rows = pd.read_pickle(model / "rows.pickle")
    body = json.dumps({peer.batch["key"]: rows.to_dict("records")}, separators=(",", ":")).encode()
    with running(peer, model, core=SERVER_CORE, log=ENVS / f"{peer.name}.log") as server:
        url = server.url.removesuffix(peer.path) + peer.batch["path"]
        answer = peer.probabilities(json.loads(post(url, body, TIMEOUT_SECONDS)))
        if "difference" not in figures:
            expected = joblib.load(model / "model.joblib").predict_proba(rows)[:, 1]
            figures["difference"] = max(abs(a - e) for a, e in zip(answer, expected, strict=True))
        alone = _alone(server, url, body, len(rows), seconds)
        single = drive(server.url, peer.bodies(model), connections=CONNECTIONS, seconds=seconds, core=LOAD_CORE)
        beside = _beside(server, peer.bodies(model), url, body, seconds)
    quiet = {"single_p50_ms": single.p50_us / 1e3, "single_p99_ms": single.p99_us / 1e3}
    figures["rounds"].append({**alone, **quiet, **beside})


def _alone(server: Server, url: str, body: bytes, rows: int, seconds: float) -> dict[str, float]:
    """Requests one after the other for some seconds, at least three."""
    times: list[float] = []
    cpu, end = server.cpu_seconds(), time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < end:
        start = time.perf_counter()
        post(url, body, TIMEOUT_SECONDS)
        times.append(time.perf_counter() - start)
    cpu = server.cpu_seconds() - cpu
    return {"rows_per_s": rows / median(times), "cpu_us_per_row": cpu / len(times) / rows * 1e6}


def _beside(server: Server, bodies: Path, url: str, body: bytes, seconds: float) -> dict[str, float]:
    """Single predictions while a thread sends the large request again and again."""
    stop = threading.Event()
    sent: list[float] = []
    failed: list[str] = []

    def send() -> None:
        while not stop.is_set():
            try:
                post(url, body, TIMEOUT_SECONDS)
            except (OSError, NotMeasurable) as error:
                failed.append(str(error))
                return
            sent.append(time.monotonic())

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        seen = drive(server.url, bodies, connections=CONNECTIONS, seconds=seconds, core=LOAD_CORE)
        end = time.monotonic()
    finally:
        stop.set()
        thread.join(TIMEOUT_SECONDS)
    if failed:
        raise NotMeasurable(f"a large request failed beside single ones: {failed[0]}")
    return {
        "beside_p50_ms": seen.p50_us / 1e3,
        "beside_p99_ms": seen.p99_us / 1e3,
        "beside_rps": seen.requests / seen.seconds,
        "beside_batches": sum(moment < end for moment in sent),
        "beside_bad": seen.bad,
    }


def _markdown(report: dict[str, Any]) -> str:
    columns = {
        "rows/s": ("rows_per_s", "{:,.0f}"),
        "CPU µs/row": ("cpu_us_per_row", "{:.1f}"),
        "single p50 ms": ("single_p50_ms", "{:.2f}"),
        "single p99 ms": ("single_p99_ms", "{:.2f}"),
        "beside p50 ms": ("beside_p50_ms", "{:.2f}"),
        "beside p99 ms": ("beside_p99_ms", "{:.2f}"),
        "beside single/s": ("beside_rps", "{:,.0f}"),
        "large ones meanwhile": ("beside_batches", "{:.0f}"),
        "not 2xx": ("beside_bad", "{:.0f}"),
    }
    done = [p for p in report["peers"].values() if p["rounds"]]
    rows = [
        [
            p["title"],
            *(spread([r[key] for r in p["rounds"]], form) for key, form in columns.values()),
            f"{p['difference']:.1g}",
        ]
        for p in done
    ]
    left_out = "".join(f"\n- {p['title']}: {p['skipped']}" for p in report["peers"].values() if "skipped" in p)
    names = ["server", *columns, "off scikit-learn by"]
    return table(names, rows) + "\n" + (f"\nLeft out:\n{left_out}\n" if left_out else "")


if __name__ == "__main__":
    main()
