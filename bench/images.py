"""Measure images side by side, the course's three levels and Estiba's two styles, and write the table.

Needs docker with `python:3.11-slim`, and a network or a mirror for pip inside builds. hadolint and trivy are asked
where they are here. Each image is measured by itself, `--rounds` times, and the median counts.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import estiba.project
from estiba.deploy.image import build_context, container_engine, size_report
from estiba.deploy.image.build_context import Context
from estiba.deploy.image.container_engine import Engine
from estiba.planning import lower

HERE = Path(__file__).parent
LEVELS = HERE / "levels"
PAGE = HERE.parent / "docs/concepts/images.md"
RESULTS = HERE / "results/images.json"
BEGIN, END = "<!-- levels:begin -->", "<!-- levels:end -->"
SLIM = "python:3.11-slim"
LIMITS = ["--memory", "512m", "--cpus", "1", "--publish", "127.0.0.1::8000"]


@dataclass(frozen=True)
class Row:
    """The measurements of one image. mb: uncompressed. rebuild: seconds after a change of the code, caches warm."""

    name: str
    base: str
    mb: float
    layers: int
    rebuild: float
    start: float
    memory: float
    user: str
    hadolint: int | None
    trivy: int | None


@dataclass(frozen=True)
class Named:
    """An image's name in the table, its base image, and its Dockerfile."""

    name: str
    base: str
    dockerfile: Path


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--levels", default="functional,optimised,hardened,slim,scratch")
    options = asked.parse_args()
    engine = container_engine.find("docker")
    with tempfile.TemporaryDirectory(prefix="estiba-levels-") as folder:
        rows = [row for name in options.levels.split(",") for row in [_one(engine, name, Path(folder), options.rounds)]]
    RESULTS.parent.mkdir(exist_ok=True)
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    RESULTS.write_text(json.dumps({"date": when, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    publish(rows, when, options.rounds)


def _one(engine: Engine, name: str, folder: Path, rounds: int) -> Row:
    print(f"{name}: building", file=sys.stderr, flush=True)
    return (
        _level(engine, name, folder, rounds)
        if name in ("functional", "optimised", "hardened")
        else _ours(engine, name, folder, rounds)
    )


def _level(engine: Engine, name: str, folder: Path, rounds: int) -> Row:
    work = folder / name
    shutil.copytree(LEVELS, work, ignore=shutil.ignore_patterns("*.Dockerfile", "README.md", "__pycache__"))
    subprocess.run([sys.executable, str(LEVELS / "train.py"), str(work / "model.joblib")], check=True)
    shutil.copyfile(LEVELS / f"{name}.Dockerfile", work / "Dockerfile")
    full = "python:3.11" if engine.has("python:3.11") else SLIM
    build = [
        "build",
        "--pull=false",
        "--quiet",
        "--build-arg",
        f"BASE={full}",
        "-t",
        f"estiba-levels/{name}",
        str(work),
    ]
    engine.ask(*build)

    def change(number: int) -> None:
        with (work / "main.py").open("a") as code:
            code.write(f"\n# change {number} at {time.time()}\n")

    rebuild = _timed(rounds, change, lambda: engine.ask(*build))
    base = full if name == "functional" else SLIM
    return _measured(engine, f"estiba-levels/{name}", Named(name, base, work / "Dockerfile"), rebuild, rounds)


def _ours(engine: Engine, style: str, folder: Path, rounds: int) -> Row:
    context = _context(folder, style)
    build = ["build", "--pull=false", "--quiet", "-t", f"estiba-levels/{style}", str(context.folder)]
    engine.ask(*build)

    def change(number: int) -> None:
        """A new version of the model's settings: what changes when a project does, and its packages do not."""
        settings = context.folder / "models/server.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "drain": 10 + number}))

    rebuild = _timed(rounds, change, lambda: engine.ask(*build))
    named = Named(f"Estiba, {style}", SLIM, context.folder / "Dockerfile")
    return _measured(engine, f"estiba-levels/{style}", named, rebuild, rounds)


def _context(folder: Path, style: str) -> Context:
    """The image of the portfolio's bank churn model, trained and packed by Estiba."""
    project = folder / "portfolio"
    if not project.exists():
        ignored = shutil.ignore_patterns(
            ".estiba", "__pycache__", "notebook", "dashboard", "mlflow*", "*_api", "*_fastapi"
        )
        shutil.copytree(HERE.parent / "examples/portfolio", project, ignore=ignored)
        text = (project / "estiba.toml").read_text()
        (project / "estiba.toml").write_text(re.sub(r"(?ms)^\[services\..*?(?=^\[(?!services)|\Z)", "", text))
        command = [sys.executable, "-m", "estiba", "train", "bankchurn", "-C", str(project)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        keep = re.findall(r"(?ms)^\[models\.bankchurn\b.*?(?=^\[models\.(?!bankchurn)|\Z)", text)
        (project / "estiba.toml").write_text('[project]\nname = "levels"\n\n' + keep[0])
    plan = lower(estiba.project.load(project))
    target = folder / style
    target.mkdir()
    return build_context.assemble(plan, plan["models"], target, style=style)


def _timed(rounds: int, change: Callable[[int], None], build: Callable[[], object]) -> float:
    seconds = []
    for number in range(rounds):
        change(number)
        began = time.monotonic()
        build()
        seconds.append(time.monotonic() - began)
    return median(seconds)


def _measured(engine: Engine, image: str, named: Named, rebuild: float, rounds: int) -> Row:
    name, dockerfile = named.name, named.dockerfile
    with tempfile.TemporaryDirectory() as folder:
        engine.save(image, Path(folder) / "image.tar")
        weight = size_report.weigh(size_report.archive(Path(folder) / "image.tar"))
    path = "/health/ready" if name.startswith("Estiba") else "/health"
    runs = [_run(engine, image, path) for _ in range(rounds)]
    return Row(
        name=name,
        base=named.base,
        mb=round(weight.total / 1e6, 1),
        layers=len(weight.layers),
        rebuild=round(rebuild, 1),
        start=round(median(start for start, _ in runs), 2),
        memory=round(median(memory for _, memory in runs) / 1e6, 1),
        user=engine.inspect("image", image)["Config"]["User"] or "root",
        hadolint=_findings(["hadolint", "--no-fail", "--format", "json", str(dockerfile)], lambda report: len(report)),
        trivy=_findings(
            ["trivy", "config", "--quiet", "--skip-check-update", "--format", "json", str(dockerfile)],
            lambda report: sum(len(r.get("Misconfigurations", ())) for r in report.get("Results", ())),
        ),
    )


def _run(engine: Engine, image: str, path: str) -> tuple[float, int]:
    """Seconds from `docker run` to the first 200, and bytes resident in all its processes after it."""
    began = time.monotonic()
    container = engine.ask("run", "--detach", *LIMITS, image)
    try:
        port = engine.ask("port", container, "8000").rpartition(":")[2]
        while time.monotonic() < began + 60:
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                    break
            except OSError:
                time.sleep(0.01)
        start = time.monotonic() - began
        resident = engine.ask("top", container, "-eo", "pid,rss").splitlines()[1:]
        return start, sum(int(line.split()[1]) for line in resident) * 1024
    finally:
        engine.try_to("rm", "--force", container)


def _findings(command: list[str], count: Callable[[object], int]) -> int | None:
    if shutil.which(command[0]) is None:
        return None
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return count(json.loads(said or "[]"))


def publish(rows: list[Row], when: str, rounds: int) -> None:
    """Writes the table into the page between its marks."""
    heads = ["image", "MB", "layers", "rebuild, s", "first 200, s", "memory, MB", "user", "hadolint", "trivy"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        figures = [row.name, row.mb, row.layers, row.rebuild, row.start, row.memory, row.user, row.hadolint, row.trivy]
        lines.append("| " + " | ".join("not here" if figure is None else str(figure) for figure in figures) + " |")
    full = rows[0].base if rows[0].name == "functional" else ""
    note = f" The functional level stands on {full} here, as the full image was not at hand: it is larger." * (
        full == SLIM
    )
    text = f"{when}, medians of {rounds} rounds on a machine with two cores, images limited to one.{note}"
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join([*lines, "", text]) + f"\n{END}{after}")
    print("\n".join([*lines, "", text]))


if __name__ == "__main__":
    main()
