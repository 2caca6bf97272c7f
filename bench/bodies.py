"""Ten thousand rows in one request, as each form of body that Estiba reads, and its answer in each form.

    python bench/bodies.py [--rounds 3] [--seconds 3] [--json FILE]

The server is this environment's, as Arrow and Parquet need the extra `parquet`. One core, one request at a time.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from load import post
from models import prepare
from peer import ENVS, OURS, Peer
from run import SERVER_CORE, started, write
from servers import Server, running
from table import spread, table

TIMEOUT_SECONDS = 60
JSON, CSV = "application/json", "text/csv"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
PAIRS = [(JSON, JSON), (CSV, JSON), (ARROW, JSON), (ARROW, ARROW), (PARQUET, JSON), (PARQUET, PARQUET)]
"""Media types of requests and of their answers."""


def main() -> None:
    options = _options()
    started()
    model = prepare()
    peer = _here(Peer.read(OURS))
    peer.prepared(model)
    rows = pd.read_pickle(model / "rows.pickle")
    bodies = {kind: _written(rows, kind) for kind in (JSON, CSV, ARROW, PARQUET)}
    expected = joblib.load(model / "model.joblib").predict_proba(rows)[:, 1]
    report: dict[str, Any] = {"rows": len(rows), "pairs": [[] for _ in PAIRS]}
    for _ in range(options.rounds):
        with running(peer, model, core=SERVER_CORE, log=ENVS / f"{peer.name}.log") as server:
            for (sent, back), seen in zip(PAIRS, report["pairs"], strict=True):
                seen.append(_measured(server, bodies[sent], (sent, back), expected, options.seconds))
    write(report, options.json, "bodies", _markdown(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/bodies-DATE.json")
    return parser.parse_args()


def _here(peer: Peer) -> Peer:
    """The same server out of this environment."""
    return replace(peer, command=[word.replace("{bin}", str(Path(sys.executable).parent)) for word in peer.command])


def _written(rows: pd.DataFrame, kind: str) -> bytes:
    if kind == JSON:
        return json.dumps({"records": rows.to_dict("records")}, separators=(",", ":")).encode()
    if kind == CSV:
        return rows.to_csv(index=False).encode()
    columns, out = pa.Table.from_pandas(rows, preserve_index=False), io.BytesIO()
    if kind == PARQUET:
        pq.write_table(columns, out)
    else:
        with pa.ipc.new_stream(out, columns.schema) as stream:
            stream.write_table(columns)
    return out.getvalue()


def _probabilities(answer: bytes, kind: str) -> list[float]:
    if kind == JSON:
        return [one["probabilities"]["1"] for one in json.loads(answer)["predictions"]]
    columns = pq.read_table(io.BytesIO(answer)) if kind == PARQUET else pa.ipc.open_stream(answer).read_all()
    return columns["probabilities.1"].to_pylist()  # type: ignore[no-any-return]


def _measured(server: Server, body: bytes, pair: tuple[str, str], expected: Any, seconds: float) -> dict[str, float]:
    kind, back = pair
    answer = post(server.url, body, TIMEOUT_SECONDS, kind=kind, back=back)
    given = _probabilities(answer, back)
    times: list[float] = []
    cpu, end = server.cpu_seconds(), time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < end:
        start = time.perf_counter()
        post(server.url, body, TIMEOUT_SECONDS, kind=kind, back=back)
        times.append(time.perf_counter() - start)
    cpu = server.cpu_seconds() - cpu
    return {
        "rows_per_s": len(given) / median(times),
        "cpu_us_per_row": cpu / len(times) / len(given) * 1e6,
        "sent_mb": len(body) / 1e6,
        "answer_mb": len(answer) / 1e6,
        "difference": max(abs(a - e) for a, e in zip(given, expected, strict=True)),
    }


def _markdown(report: dict[str, Any]) -> str:
    forms = {"rows_per_s": "{:,.0f}", "cpu_us_per_row": "{:.2f}", "sent_mb": "{:.2f}", "answer_mb": "{:.2f}"}
    lines = []
    for (sent, back), seen in zip(PAIRS, report["pairs"], strict=True):
        cells = [spread([r[key] for r in seen], form) for key, form in forms.items()]
        lines.append([f"`{sent}`", f"`{back}`", *cells, f"{max(r['difference'] for r in seen):.1g}"])
    names = ["body", "answer", "rows/s", "CPU µs/row", "body MB", "answer MB", "off scikit-learn by"]
    return table(names, lines) + "\n"


if __name__ == "__main__":
    main()
