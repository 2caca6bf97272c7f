"""Two revisions of Estiba beside each other in one run: did a change cost speed?

    git worktree add /tmp/before v1.0.0 && make -C /tmp/before .venv/.ready
    python bench/revisions.py /tmp/before [.] [--rounds 20] [--seconds 2] [--connections 8,64] [--json FILE]

Both trees serve the artifact that the first one packs. Every round starts both servers anew, because a process keeps
for its whole life what it drew at its start (addresses, hash seeds), and that alone moves its speed by several percent.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path
from statistics import mean, median, stdev

from load import NotMeasurable, drive
from models import ROOT
from peer import ENVS, OURS, Peer
from run import LOAD_CORE, SERVER_CORE, WARM_SECONDS, measure, rotated, started, write
from servers import running

Round = dict[str, dict[str, dict[str, float]]]
"""Figures by revision and number of connections."""


def main() -> None:
    options = _options()
    started()
    model = _packed(options.before)
    before, after = _revision(options.before), _revision(options.after)
    ENVS.mkdir(exist_ok=True)
    rounds: list[Round] = []
    for turn in range(options.rounds):
        pair = [_loads(each, model, options) for each in rotated([before, after], turn)]
        rounds.append(dict(zip(("before", "after"), rotated(pair, turn), strict=True)))
        print(f"bench: round {turn + 1} of {options.rounds}", file=sys.stderr)
    titles = {"before": before.title, "after": after.title}
    write({"revisions": titles, "rounds": rounds}, options.json, "revisions", _markdown(titles, rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout with its environment in .venv")
    parser.add_argument("after", type=Path, nargs="?", default=ROOT, help="by default this checkout")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=lambda t: [int(n) for n in t.split(",")], default=[8, 64])
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/revisions-DATE.json")
    options = parser.parse_args()
    for tree in (options.before, options.after):
        if not (tree / ".venv" / "bin" / "estiba").exists():
            parser.error(f"{tree} has no .venv/bin/estiba: run make .venv/.ready there")
    return options


def _packed(tree: Path) -> Path:
    """The folder with the registry and the requests, made by the older revision, which could not read newer files."""
    command = [str(tree.resolve() / ".venv" / "bin" / "python"), str(tree.resolve() / "bench" / "models.py")]
    packed = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Path(packed.strip()).parent


def _revision(tree: Path) -> Peer:
    """A checkout as a peer that runs from its own environment."""
    peer = Peer.read(OURS)
    git = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
    title = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    estiba = tree.resolve() / ".venv" / "bin" / "estiba"
    return replace(peer, title=title, command=[str(estiba), *peer.command[1:]])


def _loads(peer: Peer, model: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    bodies = peer.bodies(model)
    with running(peer, model, core=SERVER_CORE, log=ENVS / "revision.log") as server:
        drive(server.url, bodies, connections=8, seconds=WARM_SECONDS, core=LOAD_CORE)
        loads = {str(n): measure(server, bodies, n, options.seconds) for n in options.connections}
    if bad := sum(load["bad"] for load in loads.values()):
        raise NotMeasurable(f"{peer.title} gave {bad:g} bad answers")
    return loads


def _markdown(titles: dict[str, str], rounds: list[Round]) -> str:
    lines = [
        f"{titles['after']} beside {titles['before']}, {len(rounds)} rounds, servers started anew in each. Ratios are "
        "geometric means over the rounds, with the interval that holds the true one in 95 of 100 runs.",
        "",
        "| connections | requests/s before | after | ratio | CPU µs/request before | after | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in rounds[0]["before"]:
        cells = [n]
        for figure, form in (("rps", "{:,.0f}"), ("cpu_us", "{:.1f}")):
            pairs = [(each["before"][n][figure], each["after"][n][figure]) for each in rounds]
            cells += [form.format(median(pair[side] for pair in pairs)) for side in (0, 1)]
            cells.append(_ratio([after / before for before, after in pairs]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(ratios: list[float]) -> str:
    """Geometric mean with its 95 % interval."""
    logs = [log(each) for each in ratios]
    half = 1.96 * stdev(logs) / sqrt(len(logs)) if len(logs) > 1 else 0.0
    return f"{exp(mean(logs)):.3f} ({exp(mean(logs) - half):.3f}–{exp(mean(logs) + half):.3f})"


if __name__ == "__main__":
    main()
