"""Pipelines: what lints, tests, builds, scans, signs and deploys a project, for GitHub Actions and GitLab CI."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba import __version__
from estiba.deploy.output import yaml
from estiba.deploy.plan import image_options
from estiba.deploy.plan.image_options import ImageOptions

FILES = {"github": ".github/workflows/estiba.yml", "gitlab": ".gitlab-ci.yml"}

COSIGN = "v2.6.1"
TRIVY = "0.71.0"

_COSIGN_FROM = f"https://github.com/sigstore/cosign/releases/download/{COSIGN}/cosign-linux-amd64"

_TRIVY_FROM = f"https://github.com/aquasecurity/trivy/releases/download/v{TRIVY}/trivy_{TRIVY}_Linux-64bit.tar.gz"


@dataclass(frozen=True)
class Pipeline:
    """What a pipeline does.

    Args:
        python: minor version. estiba: the version that is installed.
        models: that are verified. repository: before their names.
        target: `compose` or `kubernetes`. requirements: the project's own file of packages, or empty.
        tests: the folder of its tests, or empty.
    """

    python: str
    estiba: str
    models: tuple[str, ...]
    repository: str
    target: str
    requirements: str = ""
    tests: str = ""

    @property
    def registry(self) -> str:
        """The host of the container registry."""
        return image_options.host(f"{self.repository}/")


def of(folder: Path, options: ImageOptions, models: Iterable[str], target: str) -> Pipeline:
    """The pipeline that suits a project: with its own packages and tests, where it has some."""
    requirements = "requirements.txt" if (folder / "requirements.txt").is_file() else ""
    tests = "tests" if (folder / "tests").is_dir() else ""
    python = options.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    return Pipeline(python, __version__, tuple(models), options.repository, target, requirements, tests)


def render(pipeline: Pipeline, host: str) -> str:
    """The file for `github` or `gitlab`."""
    body = _github(pipeline) if host == "github" else _gitlab(pipeline)
    return _HEAD.format(host=host) + yaml.render(body)


_HEAD = """\
# Written by `estiba ci {host}`, and yours from now on. Each step is a command that also runs on your own machine.
"""


# The steps, the same for both


def _setup(pipeline: Pipeline) -> list[str]:
    tools = f"pip install 'estiba[train,deploy]=={pipeline.estiba}' pip-audit pytest ruff"
    return [tools, *([f"pip install --requirement {pipeline.requirements}"] if pipeline.requirements else [])]


def _check(pipeline: Pipeline) -> list[str]:
    tests = [f"pytest {pipeline.tests}"] if pipeline.tests else []
    verified = [f"estiba verify {name}" for name in pipeline.models]
    return ["ruff check .", "estiba doctor .", "estiba train", *verified, *tests]


def _scanner(unpack: str) -> str:
    """Trivy beside pip-audit, which knows nothing of Debian's packages."""
    return f"curl --fail --location --silent --show-error {_TRIVY_FROM} | {unpack} -xz -C /usr/local/bin trivy"


def _build(*options: str) -> list[str]:
    return [" ".join(["estiba build --push --json", *options, "> images.json"]), "estiba scan"]


def _sign() -> list[str]:
    """Signs what the registry holds, by digest: a tag could be moved."""
    names = """python -c 'import json; print(*(one["pushed"] for one in json.load(open("images.json"))), sep="\\n")'"""
    return [f"{names} | xargs -n 1 cosign sign --yes"]


def _deploy(pipeline: Pipeline) -> list[str]:
    if pipeline.target == "compose":
        return ["estiba deploy compose --yes"]
    return ["estiba kubernetes --pin images.json", "estiba deploy kubernetes production --yes"]


def _login(pipeline: Pipeline) -> str:
    host = pipeline.registry
    return f'echo "$REGISTRY_PASSWORD" | docker login --username "$REGISTRY_USER" --password-stdin {host}'


# GitHub


def _github(pipeline: Pipeline) -> dict[str, Any]:
    on_main = "github.ref == 'refs/heads/main'"
    keep, keep_names = ({"uses": "actions/upload-artifact@v4", "with": with_} for with_ in (_KEPT, _NAMES))
    fetch = {"uses": "actions/download-artifact@v4", "with": {"name": "registry", "path": ".estiba/registry"}}
    fetch_names = {"uses": "actions/download-artifact@v4", "with": {"name": "images"}}
    secrets = {name: f"${{{{ secrets.{name} }}}}" for name in ("REGISTRY_USER", "REGISTRY_PASSWORD")}
    cosign = {"uses": "sigstore/cosign-installer@v3", "with": {"cosign-release": COSIGN}}
    deploying = {"runs-on": ["self-hosted", "production"], "environment": "production"}
    return {
        "name": "estiba",
        "on": {"push": {"branches": ["main"]}, "pull_request": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": "${{ github.workflow }}-${{ github.ref }}", "cancel-in-progress": False},
        "jobs": {
            "check": {
                "runs-on": "ubuntu-latest",
                "steps": [*_begin(pipeline), *_runs(_check(pipeline)), keep],
            },
            "images": {
                "needs": "check",
                "if": on_main,
                "runs-on": "ubuntu-latest",
                "permissions": {"contents": "read", "packages": "write", "id-token": "write"},
                "env": secrets,
                "steps": [
                    *_begin(pipeline),
                    fetch,
                    *_runs([_login(pipeline), _scanner("sudo tar"), *_build()]),
                    cosign,
                    *_runs(_sign()),
                    keep_names,
                ],
            },
            "deploy": {
                "needs": "images",
                "if": on_main,
                **deploying,
                "steps": [*_begin(pipeline), fetch, fetch_names, *_runs(_deploy(pipeline))],
            },
        },
    }


_KEPT = {"name": "registry", "path": ".estiba/registry", "include-hidden-files": True}

_NAMES = {"name": "images", "path": "images.json"}


def _begin(pipeline: Pipeline) -> list[dict[str, Any]]:
    python = {"uses": "actions/setup-python@v5", "with": {"python-version": pipeline.python, "cache": "pip"}}
    if not pipeline.requirements:
        del python["with"]["cache"]  # type: ignore[attr-defined]  # it is keyed by a file of requirements
    return [{"uses": "actions/checkout@v4"}, python, *_runs(_setup(pipeline))]


def _runs(commands: Sequence[str]) -> list[dict[str, Any]]:
    return [{"run": command} for command in commands]


# GitLab


def _gitlab(pipeline: Pipeline) -> dict[str, Any]:
    on_main = [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}]
    cosign = [
        f"curl --fail --location --output /usr/local/bin/cosign {_COSIGN_FROM}",
        "chmod 755 /usr/local/bin/cosign",
    ]
    docker = ["apt-get update", "apt-get install --yes --no-install-recommends curl docker-cli docker-buildx"]
    registry, names = ({"paths": [path], "expire_in": "1 week"} for path in (".estiba/registry", "images.json"))
    return {
        "stages": ["check", "images", "deploy"],
        "default": {"image": f"python:{pipeline.python}-slim-trixie", "before_script": _setup(pipeline)},
        "check": {
            "stage": "check",
            "script": _check(pipeline),
            "artifacts": registry,
            "rules": [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}, *on_main],
        },
        "images": {
            "stage": "images",
            "needs": ["check"],
            "services": ["docker:28-dind"],
            "variables": {"DOCKER_HOST": "tcp://docker:2375", "DOCKER_TLS_CERTDIR": ""},
            "id_tokens": {"SIGSTORE_ID_TOKEN": {"aud": "sigstore"}},
            # The engine is on another host than the job, so what it runs cannot be asked from here.
            "script": [*docker, *cosign, _scanner("tar"), _login(pipeline), *_build("--no-verify"), *_sign()],
            "artifacts": names,
            "rules": on_main,
        },
        "deploy": {
            "stage": "deploy",
            "needs": ["check", "images"],
            "tags": ["production"],
            "environment": "production",
            "script": _deploy(pipeline),
            "rules": on_main,
        },
    }
