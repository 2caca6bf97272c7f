"""Two servers of one model beside each other, one of them with --drift: does counting cost throughput?

    python bench/drift_cost.py REF [--registry URL] [--record FILE] [--rounds 10] [--seconds 3] [--connections 32]

REF is a model of the registry, FILE one of its records as JSON. Rounds alternate which server is asked first. It needs
wrk. The last line is the median of the ratios, with and without.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        script = folder / "post.lua"
        body = options.record.read_text().strip()
        content = f'wrk.body = {json.dumps(body)}\nwrk.headers["Content-Type"] = "application/json"\n'
        script.write_text(f'wrk.method = "POST"\n{content}')
        urls = {name: _started(stack, options, folder, name) for name in ("without", "with")}
        ratios = []
        for turn in range(options.rounds):
            order = ("without", "with") if turn % 2 else ("with", "without")
            rates = {name: _load(urls[name], script, options) for name in order}
            ratios.append(rates["with"] / rates["without"])
            print(
                f"{rates['without']:,.0f} requests/s without, {rates['with']:,.0f} with: {ratios[-1]:.3f}", flush=True
            )
    print(f"median {median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ref")
    parser.add_argument("--registry", default=".estiba/registry")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    return parser.parse_args()


def _started(stack: ExitStack, options: argparse.Namespace, folder: Path, name: str) -> str:
    """The URL of a server, once it is ready."""
    command = [sys.executable, "-m", "estiba", "serve", options.ref, "--registry", options.registry, "--port", "0"]
    command += ["--workers", "1", "--state", f"sqlite:///{folder}/{name}.db", *(["--drift"] if name == "with" else [])]
    output = stack.enter_context((folder / f"{name}.log").open("w+"))
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True)
    stack.callback(server.wait, 20)
    stack.callback(server.terminate)
    assert server.stdout is not None
    for line in server.stdout:
        if address := re.search(r"http://[\d.:]+", line):
            return address.group()
    raise SystemExit(f"The server does not start: {(folder / f'{name}.log').read_text()}")


def _load(url: str, script: Path, options: argparse.Namespace) -> float:
    """Requests a second of one round."""
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"{url}/models/{options.ref.partition('@')[0]}/predict"], capture_output=True, text=True, check=True
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1))


if __name__ == "__main__":
    main()
