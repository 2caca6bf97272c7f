"""Format a report as Markdown: medians over the rounds, their spread, and ratios to Estiba taken round by round."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from peer import OURS

QUIET = 0.15
"""Cores that other programs may keep busy before a figure is marked."""

Figures = dict[str, Any]


def markdown(report: dict[str, Any]) -> str:
    """The whole report as Markdown, one table for each number of connections and one for what does not depend on it."""
    m = report["machine"]
    head = (
        f"Measured {report['date'][:10]} on {m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}, "
        f"Python {m['python']}; Estiba at {report['commit']}. {report['data']}. Server on one core, wrk on the other; "
        f"medians of {report['rounds']} interleaved rounds of {report['seconds']:g} s, lowest to highest in brackets."
    )
    done = {name: p for name, p in report["peers"].items() if p["rounds"]}
    parts = [head, *(_speeds(done, str(n)) for n in report["connections"]), _footprint(done), *_remarks(report, done)]
    return "\n\n".join(parts) + "\n"


def _speeds(peers: dict[str, Figures], n: str) -> str:
    rows = [
        [
            p["title"],
            spread([r["loads"][n]["rps"] for r in p["rounds"]], "{:,.0f}"),
            _ratio(peers, name, lambda ours, its: ours["loads"][n]["rps"] / its["loads"][n]["rps"]),
            spread([r["loads"][n]["p50_ms"] for r in p["rounds"]], "{:.2f}"),
            spread([r["loads"][n]["p99_ms"] for r in p["rounds"]], "{:.2f}"),
            spread([r["loads"][n]["cpu_us"] for r in p["rounds"]], "{:,.0f}"),
            _ratio(peers, name, lambda ours, its: its["loads"][n]["cpu_us"] / ours["loads"][n]["cpu_us"]),
            str(sum(r["loads"][n]["bad"] for r in p["rounds"])),
        ]
        for name, p in sorted(peers.items(), key=lambda item: -_middle(item[1], n))
    ]
    names = ["server", "requests/s", "Estiba / it", "p50 ms", "p99 ms", "CPU µs/request", "its / Estiba's", "not 2xx"]
    return f"### {n} connection{'' if n == '1' else 's'}\n\n{table(names, rows)}"


def _middle(figures: Figures, n: str) -> float:
    return median(r["loads"][n]["rps"] for r in figures["rounds"])


def _ratio(peers: dict[str, Figures], name: str, of: Callable[[Figures, Figures], float]) -> str:
    """The median over rounds of a ratio within one round: a slow minute of the machine hits both of its sides."""
    if OURS not in peers or name == OURS:
        return "–" if name != OURS else "1"
    pairs = zip(peers[OURS]["rounds"], peers[name]["rounds"], strict=False)
    return _significant(median(of(ours, its) for ours, its in pairs))


def _footprint(peers: dict[str, Figures]) -> str:
    rows = [
        [
            p["title"],
            spread([r["cold_start_s"] for r in p["rounds"]], "{:.2f}"),
            f"{median(r['rss_mb'] for r in p['rounds']):,.0f}",
            f"{median(r['pss_mb'] for r in p['rounds']):,.0f}",
            f"{p['environment_mb']:,.0f}",
            "–" if p["difference"] is None else f"{p['difference']:.1g}",
            ", ".join(f"{k} {v}" for k, v in p["versions"].items()),
        ]
        for p in peers.values()
    ]
    names = ["server", "cold start s", "RSS MB", "PSS MB", "environment MB", "off scikit-learn by", "versions"]
    return f"### Start, memory, disk, truth\n\n{table(names, rows)}"


def _remarks(report: dict[str, Any], done: dict[str, Figures]) -> list[str]:
    left_out = [f"- {p['title']}: {p['skipped']}" for p in report["peers"].values() if "skipped" in p]
    remarks = ["Left out, or stopped part of the way:\n\n" + "\n".join(left_out)] if left_out else []
    loads = [load["other_load"] for p in done.values() for r in p["rounds"] for load in r["loads"].values()]
    noisy = sum(load > QUIET for load in loads)
    if noisy:
        remarks.append(
            f"**The machine was not quiet:** other programs took more than {QUIET:g} of a core in {noisy} of "
            f"{len(loads)} measurements (up to {max(loads):.2f} cores). "
            "Trust the ratios of CPU time; rates depend on what the scheduler gave each server."
        )
    return remarks


def spread(values: list[float], form: str) -> str:
    """The median, with the lowest and highest in brackets."""
    middle = form.format(median(values))
    return f"{middle} ({form.format(min(values))}–{form.format(max(values))})" if len(values) > 1 else middle


def _significant(value: float) -> str:
    return f"{value:.0f}×" if value >= 10 else f"{value:.2g}×"


def table(names: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
