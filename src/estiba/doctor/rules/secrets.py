"""Secrets where they do not belong: in the layers of an image, and in a compose file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename

from estiba.doctor.catalogue import Finding, finding, words
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.compose_file import Service, Variable, settings
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import Step, pairs
from estiba.doctor.rules.base_images import base

NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PWD|SECRET|TOKEN|API_?KEY|SECRET_KEY|ACCESS_KEY|PRIVATE_KEY|ACCESS_KEY_ID|CREDENTIALS|PAT)$",
    re.I,
)
_URL = re.compile(r"\b[a-z][a-z0-9+]*://[^/\s:@]*:([^/\s@]+)@", re.I)
_FILES = re.compile(
    r"(?:id_(?:rsa|dsa|ecdsa|ed25519)|\.netrc|\.pypirc|kaggle\.json|credentials(?:\.json)?|\.git-credentials)$"
)
_EXAMPLES = re.compile(r"example|sample|template|dist$", re.I)
_FIX_LAYER = (
    "Give it when the container starts, or while building with RUN --mount=type=secret; and change it, as it is out."
)
_FIX_COMPOSE = "Put it in a file named under `secrets:`, or in an .env file that is not in version control."

WEAK = words(
    """
    admin admin123 administrator password password123 passw0rd pass passwd secret changeme change_me changeit root
    toor test guest user postgres mysql redis rabbitmq rabbit grafana mlflow minio minioadmin example default
    qwerty letmein 123 1234 12345 123456 12345678 123456789 abc123 secure_password_here your_password token
    """
)
"""What is tried first by whoever tries passwords."""

_OPEN = {
    "POSTGRES_HOST_AUTH_METHOD": ("trust", "lets anybody in as any user"),
    "ALLOW_EMPTY_PASSWORD": ("yes", "starts without a password"),
    "MYSQL_ALLOW_EMPTY_PASSWORD": ("yes", "starts without a password"),
}


def check_image(image: Image) -> Iterator[Finding]:
    """Secrets in the layers of the image that is shipped; earlier stages are not."""
    if image.final is None:
        return
    for step in image.final.all_steps:
        if step.instruction.name in ("ENV", "ARG"):
            yield from _set(step, image)
        elif step.instruction.name == "RUN" and (found := _URL.search(step.text)) and "$" not in found[1]:
            message = "A password in an address stays readable in the image's history."
            yield finding("secret-in-layer", image.at(step.instruction.line_of(found[1])), message, _FIX_LAYER)
    yield from _copied(image)


def _set(step: Step, image: Image) -> Iterator[Finding]:
    for name, value in pairs(step.text).items() if step.instruction.name == "ENV" else _arguments(step.text):
        if not NAME.search(name):
            continue
        at = image.at(step.instruction.line_of(name))
        if step.instruction.name == "ARG":
            message = f"The value of the build argument {name} stays readable in the image's history."
            yield finding("secret-in-layer", at, message, _FIX_LAYER)
        elif value and "$" not in value and not value.startswith("/run/"):
            yield finding(
                "secret-in-layer", at, f"{name} is kept in the image, readable with docker inspect.", _FIX_LAYER
            )


def _arguments(text: str) -> list[tuple[str, str]]:
    parts = (word.partition("=") for word in text.split())
    return [(name, value.strip("\"'")) for name, _, value in parts]


def _copied(image: Image) -> Iterator[Finding]:
    done: set[str] = set()
    for placed in image.contents.files.values():
        why = "" if placed.source in done else secret_file(placed.source, image.context)
        if why:
            done.add(placed.source)
            fix = "Add it to .dockerignore, and give it when the container starts."
            yield finding(
                "secret-in-layer", image.at(placed.step.instruction.line), f"`{placed.source}` is copied {why}.", fix
            )


def secret_file(path: str, context: BuildContext) -> str:
    """Why a file is a secret, in words that follow "is copied"; empty where it is none."""
    name = basename(path)
    if _EXAMPLES.search(name):
        return ""
    if name == ".env" or name.startswith(".env."):
        found = settings(context.text(path) or "")
        secret = next((key for key, (value, _) in found.items() if NAME.search(key) and value), "")
        return f"into the image, with the {secret} in its line {found[secret][1]}" if secret else ""
    if _FILES.search(name) and not name.endswith(".pub"):
        return "into the image, and it holds credentials"
    if name.endswith((".pem", ".key")) and "PRIVATE KEY" in (context.text(path) or ""):
        return "into the image, and it holds a private key"
    return ""


def check_service(service: Service) -> Iterator[Finding]:
    """Passwords that everybody knows, and secrets written in the compose file."""
    for name, variable in service.environment.items():
        weakness, strict = _weak(name, variable)
        if weakness:
            at = variable.at
            message = f"{service.name} {weakness}, as {name} says."
            yield finding("default-password", at, message, f"Make one with: openssl rand -hex 24. {_FIX_COMPOSE}")
        elif strict:
            yield finding(
                "secret-in-compose",
                variable.at,
                f"The secret {name} is written in the file.",
                _FIX_COMPOSE,
            )
    yield from _grafana(service)
    yield from _jupyter(service)


def _weak(name: str, variable: Variable) -> tuple[str, bool]:
    """What is wrong with a password, in words that follow the service's name; and whether it is one written out."""
    value = variable.value
    if name in _OPEN and value.lower().strip("'\"") in (_OPEN[name][0], "true", "1"):
        return _OPEN[name][1], False
    found = _URL.search(value)
    secret = value if NAME.search(name) else found[1] if found else ""
    if not secret or secret.startswith(("${", "$", "/")):
        return "", False
    owner = re.search(r"://([^/\s:@]+):", value)
    if secret.lower() in WEAK or (owner and owner[1] == secret and found):
        return f"has the password `{secret}`, which everybody tries first", False
    return "", "$" not in variable.raw


def _grafana(service: Service) -> Iterator[Finding]:
    """Grafana that is told no password has admin/admin."""
    if base(service.image).name not in ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise"):
        return
    names = set(service.environment)
    told = {
        "GF_SECURITY_ADMIN_PASSWORD",
        "GF_SECURITY_ADMIN_PASSWORD__FILE",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION",
    }
    elsewhere = service.node.get("env_file") or any("grafana.ini" in mount.target for mount in service.mounts)
    if not names & told and not elsewhere and service.ports and "GF_AUTH_DISABLE_LOGIN_FORM" not in names:
        at = service.node.get("image").at
        message = f"{service.name} is told no password, so it takes admin/admin."
        yield finding("default-password", at, message, f"Set GF_SECURITY_ADMIN_PASSWORD__FILE. {_FIX_COMPOSE}")


def _jupyter(service: Service) -> Iterator[Finding]:
    for word in service.command or []:
        if re.search(r"\.(?:token|password)=(?:''|\"\"|)$", word):
            at = service.node.get("command").at
            message = f"{service.name} lets anybody run code in its notebooks, as its token is empty."
            yield finding(
                "default-password", at, message, "Leave the token out, and Jupyter makes one; or set JUPYTER_TOKEN."
            )
