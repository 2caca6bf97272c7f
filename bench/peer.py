"""Read a peer from its folder in peers/, which has its server, pinned requirements, and peer.toml with its commands."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from load import NotMeasurable
from models import ROOT, pack

from estiba.core.errors import EstibaError

HERE = Path(__file__).resolve().parent
ENVS = HERE / ".envs"
OURS = "estiba"

Record = dict[str, Any]


def _v2(record: Record) -> Any:
    kinds = {str: "BYTES", int: "INT64", float: "FP64"}
    inputs = [{"name": k, "shape": [1], "datatype": kinds[type(v)], "data": [v]} for k, v in record.items()]
    return {"inputs": inputs}


BODIES: dict[str, Callable[[Record], Any]] = {
    "record": lambda record: record,
    "records": lambda record: {"records": [record]},
    "customers": lambda record: {"customers": [record]},
    "tensors": lambda record: {"inputs": {k: [[v]] for k, v in record.items()}},
    "v2": _v2,
}


@dataclass(frozen=True)
class Peer:
    """One server under test.

    Args:
        command: with {bin}, {model}, {port}, {port2}, {port3} filled in, run in the peer's folder.
        body: how a record is put into a request, a key of BODIES.
        answer: keys to the probability of churn in an answer; empty for a server without a model.
        prepare: run once before the first start, in the peer's environment.
        batch: how many records travel in one request: path, key of the list of records, and in the answer the key of
            the list of predictions and the keys to a probability in each.
    """

    name: str
    title: str
    command: list[str]
    path: str
    body: str
    answer: list[str | int]
    source: str
    prepare: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str) -> Peer:
        return cls(name=name, **tomllib.loads((HERE / "peers" / name / "peer.toml").read_text()))

    @property
    def folder(self) -> Path:
        return HERE / "peers" / self.name

    @property
    def environment(self) -> Path:
        return ENVS / self.name

    def filled(self, text: str, model: Path, port: int) -> str:
        names = {"bin": self.environment / "bin", "model": model, "port": port, "port2": port + 1, "port3": port + 2}
        return text.format(**names)

    def variables(self, model: Path, port: int) -> dict[str, str]:
        """The whole environment of the server: no more than it needs, so that ours does not leak into it."""
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        model_files = {"MODEL_JOBLIB": str(model / "model.joblib"), "MODEL_ONNX": str(model / "model.onnx")}
        own = {k: self.filled(v, model, port) for k, v in self.env.items()}
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        return {**kept, **one, **model_files, **own}

    def bodies(self, model: Path) -> Path:
        """A file of its 500 requests, one JSON body a line."""
        target = model / f"bodies-{self.body}.jsonl"
        if not target.is_file() or target.stat().st_mtime < (model / "records.json").stat().st_mtime:
            records = json.loads((model / "records.json").read_text())
            lines = [json.dumps(BODIES[self.body](r), separators=(",", ":")) for r in records]
            target.write_text("\n".join(lines) + "\n")
        return target

    def probability(self, answer: Any) -> float:
        return _at(answer, self.answer)

    def probabilities(self, answer: Any) -> list[float]:
        """As `probability`, of the answer to a batch."""
        return [_at(one, self.batch["each"]) for one in answer[self.batch["list"]]]

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of its direct requirements as installed."""
        done = _uv("pip", "list", "--format", "json", "--python", str(self.environment / "bin" / "python"))
        installed = {p["name"].lower(): p["version"] for p in json.loads(done)}
        return {name: installed[name] for name in self._direct() if name in installed}

    def _direct(self) -> list[str]:
        if self.name == OURS:
            return ["estiba", "onnxruntime", "numpy", "msgspec", "uvloop", "httptools"]
        lines = (self.folder / "requirements.in").read_text().split()
        return [line.partition("==")[0].partition("[")[0] for line in lines]

    def build(self) -> None:
        """Makes its environment, unless it was made from the same pins. Raises NotMeasurable with the reason."""
        if self.name == OURS:
            # From the working tree each time, as a user of the package gets it: no extras.
            return self._install("--reinstall-package", OURS, str(ROOT))
        pins, mark = self.folder / "requirements.txt", self.environment / "bench-mark"
        digest = hashlib.sha256(pins.read_bytes()).hexdigest()
        if not mark.is_file() or mark.read_text() != digest:
            print(f"bench: building the environment of {self.name}", file=sys.stderr)
            self._install("-r", str(pins))
            mark.write_text(digest)
        return None

    def _install(self, *what: str) -> None:
        python = self.environment / "bin" / "python"
        if not python.exists():
            _uv("venv", "-q", "--python", sys.executable, str(self.environment))
        _uv("pip", "install", "-q", "--compile-bytecode", "--python", str(python), *what)

    def prepared(self, model: Path) -> None:
        """Packs the model for us; runs a peer's preparation, if it has one, in its own environment."""
        if self.name == OURS:
            try:
                pack(model)
            except EstibaError as error:
                raise NotMeasurable(f"the model cannot be packed: {error.message}") from error
        if self.prepare:
            command = [self.filled(word, model, 0) for word in self.prepare]
            _run(command, cwd=self.folder, env=self.variables(model, 0))

    def size_mb(self) -> float:
        """Disk space of its environment without the interpreter, in MB (10^6 bytes)."""
        return sum(f.stat().st_size for f in self.environment.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6


def _at(answer: Any, keys: list[Any]) -> float:
    for key in keys:
        answer = answer[key]
    return float(answer)


def _uv(*words: str) -> str:
    uv = Path(sys.executable).parent / "uv"
    return _run([str(uv) if uv.exists() else shutil.which("uv") or "uv", *words])


def _run(command: list[str], **options: Any) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True, **options).stdout
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise NotMeasurable(f"{Path(command[0]).name} {command[1]} failed: {' '.join(said[-3:])[:300]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasurable(f"{error}") from error


def names() -> list[str]:
    """All peers, Estiba first."""
    found = sorted(p.parent.name for p in (HERE / "peers").glob("*/peer.toml"))
    return sorted(found, key=lambda name: name != OURS)
