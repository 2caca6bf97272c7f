"""A million rows of a file: `estiba predict` beside pandas and scikit-learn, each a fresh process on one core.

    python bench/file_scoring.py [--rows 1000000] [--rounds 3] [--kinds parquet,csv] [--json FILE]

Both have one thread, read the file, predict, and write labels and probabilities in the same format. Time is from exec
to exit, with imports and loading of the model; CPU time and the peak of resident memory are the kernel's own counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
import pandas as pd
from models import WORK, pack, prepare, rows
from peer import OURS
from run import LOAD_CORE, SERVER_CORE, write
from table import spread, table

SIDES = (OURS, "scikit-learn")


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--score":
        return _pandas(Path(sys.argv[2]), Path(sys.argv[3]))
    options = _options()
    os.sched_setaffinity(0, {LOAD_CORE})
    pack(prepare())
    report: dict[str, Any] = {"rows": options.rows, "kinds": {}}
    for kind in options.kinds:
        source = _million(options.rows, kind)
        sides: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for turn in range(options.rounds):
            for side in SIDES if turn % 2 else SIDES[::-1]:
                sides[side].append(_measured(side, source, options.rows))
        report["kinds"][kind] = {"sides": sides, "truth": _truth(source)}
    write(report, options.json, "files", _markdown(report))
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", type=lambda t: t.split(","), default=["parquet", "csv"])
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/files-DATE.json")
    return parser.parse_args()


def _million(n: int, kind: str) -> Path:
    """A file of n rows, each column drawn for itself from the customers, so that hardly two rows are alike."""
    target = WORK / f"rows-{n}.{kind}"
    if not target.is_file():
        X = rows()[0]
        draw = np.random.default_rng(1)
        frame = pd.DataFrame({name: X[name].to_numpy()[draw.integers(0, len(X), n)] for name in X.columns})
        frame.to_parquet(target) if kind == "parquet" else frame.to_csv(target, index=False)
    return target


def _pandas(source: Path, target: Path) -> None:
    """Score as people do without Estiba: the whole file as one DataFrame."""
    frame = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source)
    model = joblib.load(WORK / "model.joblib")
    probabilities = model.predict_proba(frame)
    out = pd.DataFrame(probabilities, columns=["0", "1"])
    out.insert(0, "label", model.classes_[probabilities.argmax(axis=1)])
    out.to_parquet(target) if target.suffix == ".parquet" else out.to_csv(target, index=False)


def _command(side: str, source: Path) -> list[str]:
    if side != OURS:
        return [sys.executable, __file__, "--score", str(source), str(_target(side, source))]
    places = ["-o", str(_target(side, source)), "--registry", str(WORK / "registry")]
    return [sys.executable, "-m", "estiba", "predict", "bankchurn", str(source), *places, "--threads", "1", "--json"]


def _measured(side: str, source: Path, n: int) -> dict[str, float]:
    single_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = ["taskset", "-c", str(SERVER_CORE), *_command(side, source)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **single_thread}, stdout=subprocess.DEVNULL)
    peak = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        peak = max(peak, _peak_mb(process.pid))
        time.sleep(0.02)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise SystemExit(f"bench: {side} failed on {source}")
    cpu = ended[2].ru_utime + ended[2].ru_stime
    print(f"bench: {side}, {source.suffix[1:]}: {n / wall:,.0f} rows/s", file=sys.stderr)
    return {"rows_per_s": n / wall, "rows_per_cpu_s": n / cpu, "peak_mb": peak}


def _peak_mb(pid: int) -> float:
    """The highest resident size so far. Not ru_maxrss: that begins with what the parent had at the fork."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _target(side: str, source: Path) -> Path:
    return WORK / f"scored-{side}{source.suffix}"


def _truth(source: Path) -> dict[str, float]:
    """The largest difference of a probability, and the number of labels that differ, over all rows."""
    read = pd.read_parquet if source.suffix == ".parquet" else pd.read_csv
    ours, theirs = (read(_target(side, source)) for side in SIDES)
    difference = (ours["probabilities.1"] - theirs["1"]).abs().max()
    return {"difference": float(difference), "labels": int((ours["label"] != theirs["label"]).sum())}


def _markdown(report: dict[str, Any]) -> str:
    lines = []
    for kind, measured in report["kinds"].items():
        theirs = measured["sides"]["scikit-learn"]
        for side, rounds in measured["sides"].items():
            pairs = zip(rounds, theirs, strict=True)
            ratio = median(a["rows_per_cpu_s"] / b["rows_per_cpu_s"] for a, b in pairs)
            cells = [spread([r[key] for r in rounds], "{:,.0f}") for key in ("rows_per_s", "rows_per_cpu_s", "peak_mb")]
            lines.append([f"{kind}, {side}", *cells, f"{ratio:.2f}×"])
        truth = measured["truth"]
        differences = f"largest difference {truth['difference']:.2g}, {truth['labels']} labels differ"
        lines.append([f"{kind}, {differences}", "", "", "", ""])
    names = [f"{report['rows']:,} rows", "rows/s", "rows/CPU s", "peak MB", "of scikit-learn, CPU"]
    return table(names, lines) + "\n"


if __name__ == "__main__":
    main()
