"""Writes the newest results where people read them: whole into bench/RESULTS.md, and the gist into both READMEs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peer import OURS
from table import table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"

ENGLISH = """\
{date}, one run on {cores} shared cores ({cpu}), medians of {rounds} interleaved rounds; a random forest of 100 trees
over 10 mixed fields, one record a request, bodies varied. CPU is compared at 64 connections. One worker; {versions}.
[All figures](bench/RESULTS.md)."""

SPANISH = """\
{date}, una sola sesión en {cores} núcleos compartidos ({cpu}), medianas de {rounds} rondas intercaladas; un bosque
aleatorio de 100 árboles sobre 10 campos mixtos, un registro por petición, cuerpos variados. La CPU se compara con 64
conexiones. Un proceso; {versions}. [Todas las cifras](bench/RESULTS.md)."""

WORDS = {
    "README.md": (
        (
            "server",
            "requests/s, 8 connections",
            "64 connections",
            "CPU a request, times Estiba's",
            "off scikit-learn by",
        ),
        ENGLISH,
    ),
    "README.es.md": (
        ("servidor", "peticiones/s, 8 conexiones", "64 conexiones", "CPU por petición, veces", "difiere de sklearn en"),
        SPANISH,
    ),
}


MORE = {
    "batches": "## Ten thousand records in one request, and single ones beside them",
    "bodies": "## Ten thousand rows in every form of body",
    "engines": "## The kernel beside ONNX Runtime",
}


def newest(kind: str) -> Path:
    """The newest report of that kind; its Markdown lies beside it."""
    found = sorted(RESULTS.glob(f"{kind}-*.json"))
    if not found:
        raise SystemExit(f"There is no {kind} report in {RESULTS}: run bench/run.py and bench/file_scoring.py first.")
    return found[-1]


def gist(report: dict[str, Any], names: Sequence[str]) -> str:
    """One row a server, the fastest first."""
    peers = {name: p for name, p in report["peers"].items() if p["rounds"]}
    ours = peers[OURS]
    rows = []
    for name, p in sorted(peers.items(), key=lambda item: -_rate(item[1], "64")):
        pairs = zip(ours["rounds"], p["rounds"], strict=False)
        times = median(its["loads"]["64"]["cpu_us"] / own["loads"]["64"]["cpu_us"] for own, its in pairs)
        off = "–" if p["difference"] is None else f"{p['difference']:.2g}"
        title = f"**{p['title']}**" if name == OURS else p["title"]
        rows.append(
            [
                title,
                f"{_rate(p, '8'):,.0f}",
                f"{_rate(p, '64'):,.0f}",
                f"{times:.2g}×" if times < 10 else f"{times:.0f}×",
                off,
            ]
        )
    return table(list(names), rows)


def _rate(figures: dict[str, Any], connections: str) -> float:
    return median(r["loads"][connections]["rps"] for r in figures["rounds"])


def _engines(page: Path) -> None:
    """The kernel's figures on the page about engines."""
    begin, end = BEGIN.replace("figures", "engines"), END.replace("figures", "engines")
    if reports := sorted(RESULTS.glob("engines-*.json")):
        before, _, rest = page.read_text().partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(f"{before}{begin}\n{reports[-1].with_suffix('.md').read_text().strip()}\n{end}{after}")


def main() -> None:
    peers, files = newest("peers"), newest("files")
    report = json.loads(peers.read_text())
    parts = [
        "# Results",
        peers.with_suffix(".md").read_text(),
        "## Files of a million rows",
        files.with_suffix(".md").read_text(),
    ]
    for kind, title in MORE.items():
        if reports := sorted(RESULTS.glob(f"{kind}-*.json")):
            more = json.loads(reports[-1].read_text())
            when = f"Measured {more['date'][:10]}, Estiba at {more['commit']}."
            warning = "Trust CPU time; rates depend on what else ran."
            parts += [title, f"{when} {warning}", reports[-1].with_suffix(".md").read_text()]
    _engines(HERE.parent / "docs" / "concepts" / "engines.md")
    (HERE / "RESULTS.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")
    versions = ", ".join(
        sorted(
            {
                f"{k} {v}"
                for p in report["peers"].values()
                for k, v in p["versions"].items()
                if k not in ("numpy", "onnx")
            }
        )
    )
    for file, (names, sentence) in WORDS.items():
        path = HERE.parent / file
        before, _, rest = path.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        m = report["machine"]
        note = sentence.format(
            date=report["date"][:10], cores=m["cores"], cpu=m["cpu"], rounds=report["rounds"], versions=versions
        )
        path.write_text(f"{before}{BEGIN}\n{gist(report, names)}\n\n{note}\n{END}{after}")


if __name__ == "__main__":
    main()
