"""Rules about secrets in the layers of an image or in a compose file, and passwords that are easy to guess."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from posixpath import basename
from typing import ClassVar

from estiba.doctor.finding import Finding, listed
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.compose_file import Compose, Service, Variable, parse_env_file
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_stages import Step, pairs
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PWD|SECRET|TOKEN|API_?KEY|SECRET_KEY|ACCESS_KEY|PRIVATE_KEY|ACCESS_KEY_ID|CREDENTIALS|PAT)$",
    re.I,
)
_URL = re.compile(r"\b[a-z][a-z0-9+]*://[^/\s:@]*:([^/\s@]+)@", re.I)
_SECRET_FILES = re.compile(
    r"(?:id_(?:rsa|dsa|ecdsa|ed25519)|\.netrc|\.pypirc|kaggle\.json|credentials(?:\.json)?|\.git-credentials)$"
)
_EXAMPLES = re.compile(r"example|sample|template|dist$", re.I)
_FIX_LAYER = (
    "Pass it when the container starts, or to the build with RUN --mount=type=secret; and replace it by a new one."
)
_FIX_ARGUMENT = (
    "Pass it with RUN --mount=type=secret in place of --build-arg; if a build had it, replace it by a new one."
)
_FIX_COMPOSE = "Put it in a file named under `secrets:`, or in an .env file that is not in version control."
_GENERATE = "Generate one: openssl rand -hex 24."
_GRAFANA = ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise")

_WEAK = frozenset(
    """
    admin admin123 administrator password password123 passw0rd pass passwd secret changeme change_me changeit root
    toor test guest user postgres mysql redis rabbitmq rabbit grafana mlflow minio minioadmin example default
    qwerty letmein 123 1234 12345 123456 12345678 123456789 abc123 secure_password_here your_password token
    """.split()  # noqa: SIM905
)
"""Passwords that an attacker tries first."""

_KEY_ID = re.compile(r"ACCESS_KEY_ID$", re.I)
"""A name that goes with a secret, and is none."""

_SERVER_PASSWORD = re.compile(
    r"(?:POSTGRES|POSTGRESQL|PG|MYSQL|MARIADB|MONGO|MONGODB|MINIO|RABBITMQ|REDIS|CLICKHOUSE|GF|ELASTIC)_\w*"
    r"(?:PASSWORD|SECRET_KEY|PASS)$"
)
"""Variables with which an image of a database, or of another server, is given its password."""

_PLACEHOLDER = re.compile(
    r"^<.*>$|^\{\{.*\}\}$|^\[.*\]$|^your[-_ ]|[-_ ]your[-_ ]|[-_ ]here>?$|^x{3,}$|^\*+$|^\.{3}$|"
    r"^(?:put|insert|replace|enter|fill)[-_ ]|^change[-_ ]?(?:me|this)|^todo$|placeholder",
    re.I,
)
"""Texts that stand where a secret is to be written."""

_OPEN = {
    "POSTGRES_HOST_AUTH_METHOD": ("trust", "accepts every user without a password"),
    "ALLOW_EMPTY_PASSWORD": ("yes", "starts without a password"),
    "MYSQL_ALLOW_EMPTY_PASSWORD": ("yes", "starts without a password"),
}


class SecretInLayer(Rule):
    code = "secret-in-layer"
    severity = "error"
    title = "A secret is kept in the image, where everyone who has the image can read it."
    reason = (
        "`docker history` and `docker inspect` show the values of ENV and ARG, and a file stays in its layer even if a "
        "later one deletes it. Whoever pulls the image has the secret."
    )
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nENV API_KEY=8f3a1c77e2\nUSER 10001\n"
        'CMD ["python", "-m", "http.server", "8000"]\n',
    }
    remedy = (
        "Pass it when the container starts, as an environment variable or a mounted file; for the build itself, use "
        "`RUN --mount=type=secret`. Replace the secret, as it was published with the image."
    )

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterator[Finding]:
        """Check the layers of the image that is shipped; those of earlier stages are not."""
        for step in image.final.all_steps if image.final else ():
            if step.instruction.name in ("ENV", "ARG"):
                yield from cls._variables(step, image)
            elif step.instruction.name == "RUN" and (match := _URL.search(step.text)) and "$" not in match[1]:
                message = "A password in a URL stays readable in the image's history."
                yield cls.finding(image.at(step.instruction.line_of(match[1])), message, _FIX_LAYER)
        yield from cls._copied_files(image)

    @classmethod
    def _variables(cls, step: Step, image: Image) -> Iterator[Finding]:
        argument = step.instruction.name == "ARG"
        for name, value in _arguments(step.text) if argument else pairs(step.text).items():
            if not _SECRET_NAME.search(name):
                continue
            at = image.at(step.instruction.line_of(name))
            if argument:
                message = f"The value of the build argument {name} stays readable in the image's history."
                yield cls.finding(at, message, _FIX_LAYER if value else _FIX_ARGUMENT)
            elif value and "$" not in value and not value.startswith("/run/") and not is_placeholder(value):
                yield cls.finding(at, f"{name} is kept in the image, readable with docker inspect.", _FIX_LAYER)

    @classmethod
    def _copied_files(cls, image: Image) -> Iterator[Finding]:
        checked: set[str] = set()
        for copied in image.contents.files.values() if image.final else ():
            if copied.source in checked:
                continue
            checked.add(copied.source)
            content = _secret_content(copied.source, image.context)
            if content:
                message = f"`{copied.source}` is copied into the image, {content}."
                fix = "Add it to .dockerignore, and pass it when the container starts."
                yield cls.finding(image.at(copied.step.instruction.line), message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        for name, value in container.environment.items():
            secret = _SECRET_NAME.search(name) and value and not value.startswith("/") and value.lower() not in _WEAK
            if secret and container.image_environment.get(name) == value:
                message = f"{name} is kept in its image, readable with docker inspect."
                yield cls.finding(container.at, message, "Pass it when the container starts; and replace it.")


def _arguments(text: str) -> list[tuple[str, str]]:
    parts = (argument.partition("=") for argument in text.split())
    return [(name, value.strip("\"'")) for name, _, value in parts]


def _secret_content(path: str, context: BuildContext) -> str:
    """Describe the secret in a file, as the end of a sentence; empty if it has none."""
    name = basename(path)
    if _EXAMPLES.search(name):
        return ""
    if name == ".env" or name.startswith(".env."):
        variables = parse_env_file(context.text(path) or "")
        secret = next((key for key, (value, _) in variables.items() if _SECRET_NAME.search(key) and value), "")
        return f"with the {secret} in its line {variables[secret][1]}" if secret else ""
    if _SECRET_FILES.search(name) and not name.endswith(".pub"):
        return "and it holds credentials"
    if name.endswith((".pem", ".key")) and "PRIVATE KEY" in (context.text(path) or ""):
        return "and it holds a private key"
    return ""


class DefaultPassword(Rule):
    code = "default-password"
    severity = "error"
    title = "A password that is easy to guess, or none at all."
    reason = "Programs search the internet for open databases and dashboards, and try these passwords first."
    example: ClassVar = {
        "compose.yaml": "services:\n  db:\n    image: postgres:17\n    environment: {POSTGRES_PASSWORD: postgres}\n",
    }
    remedy = f"{_GENERATE} {_FIX_COMPOSE}"

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        weak = [
            (service, name, variable)
            for service in compose.services.values()
            for name, variable in service.environment.items()
            if _weakness(name, variable)
        ]
        copies = _copies(weak)
        for service, name, variable in weak:
            secret = _secret_value(name, variable)
            if (service.name, name) in copies.get(secret, ()):
                continue
            same = [f"{copy} of {owner}" for owner, copy in copies.get(secret, ())]
            also = f"; {listed(same)} {'are' if len(same) > 1 else 'is'} the same" if same and secret else ""
            message = f"{service.name} {_weakness(name, variable)}, in {name}{also}."
            yield cls.finding(variable.at, message, f"{_GENERATE} {_FIX_COMPOSE}")
        for service in compose.services.values():
            yield from cls._grafana(service)
            yield from cls._jupyter(service)

    @classmethod
    def _grafana(cls, service: Service) -> Iterator[Finding]:
        """Check that Grafana gets a password; its default is admin/admin."""
        settings_of_password = {
            "GF_SECURITY_ADMIN_PASSWORD",
            "GF_SECURITY_ADMIN_PASSWORD__FILE",
            "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION",
            "GF_AUTH_DISABLE_LOGIN_FORM",
        }
        if parse_image_name(service.image).name not in _GRAFANA or not service.ports:
            return
        elsewhere = service.node.get("env_file") or any("grafana.ini" in mount.target for mount in service.mounts)
        if not set(service.environment) & settings_of_password and not elsewhere:
            message = f"{service.name} is given no password, so it takes admin/admin."
            fix = f"Set GF_SECURITY_ADMIN_PASSWORD__FILE. {_FIX_COMPOSE}"
            yield cls.finding(service.node.get("image").at, message, fix)

    @classmethod
    def _jupyter(cls, service: Service) -> Iterator[Finding]:
        for argument in service.command or []:
            if re.search(r"\.(?:token|password)=(?:''|\"\"|)$", argument):
                message = f"Everyone who reaches {service.name} can run code in its notebooks, as its token is empty."
                fix = "Remove the option, and Jupyter generates a token; or set JUPYTER_TOKEN."
                yield cls.finding(service.node.get("command").at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        for name, value in container.environment.items():
            if _SECRET_NAME.search(name) and value.lower() in _WEAK:
                message = f"The password in {name} is one of those that an attacker tries first."
                yield cls.finding(container.at, message, _GENERATE)


def _copies(weak: Sequence[tuple[Service, str, Variable]]) -> dict[str, list[tuple[str, str]]]:
    """Return, by password, the service and name of variables with which a client repeats that of a server."""
    servers = {
        _secret_value(name, variable)
        for service, name, variable in weak
        if _SERVER_PASSWORD.match(name) and service.build is None
    }
    copies: dict[str, list[tuple[str, str]]] = {}
    for service, name, variable in weak:
        secret = _secret_value(name, variable)
        if secret and secret in servers and not (_SERVER_PASSWORD.match(name) and service.build is None):
            copies.setdefault(secret, []).append((service.name, name))
    return copies


def _secret_value(name: str, variable: Variable) -> str:
    """Return the password that a variable holds, alone or in a URL; empty if it names a file or another variable."""
    in_url = _URL.search(variable.value)
    value = variable.value if _SECRET_NAME.search(name) and not _KEY_ID.search(name) else in_url[1] if in_url else ""
    return "" if value.startswith(("${", "$", "/")) or is_placeholder(value) else value


def is_placeholder(value: str) -> bool:
    """Return True for a text that stands where a secret is to be written, unless it is a password by itself."""
    return value.lower() not in _WEAK and _PLACEHOLDER.search(value) is not None


def _weakness(name: str, variable: Variable) -> str:
    """Describe what is wrong with a password, as a predicate of the service; empty if it is not weak."""
    if name in _OPEN and variable.value.lower().strip("'\"") in (_OPEN[name][0], "true", "1"):
        return _OPEN[name][1]
    secret = _secret_value(name, variable)
    user = re.search(r"://([^/\s:]+):", variable.value)
    same_as_user = user is not None and user[1] == secret and _URL.search(variable.value) is not None
    if secret and (secret.lower() in _WEAK or same_as_user):
        return f"has the password `{secret}`, which an attacker tries first"
    return ""


class SecretInCompose(Rule):
    code = "secret-in-compose"
    severity = "warning"
    title = "A secret is written in the compose file."
    reason = "The file is in version control, so everyone with the repository has the secret, also after it is removed."
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    environment: {API_TOKEN: 8f3a1c77e2}\n",
    }
    remedy = _FIX_COMPOSE

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        for service in compose.services.values():
            for name, variable in service.environment.items():
                written = _secret_value(name, variable) and "$" not in variable.raw
                if written and not _weakness(name, variable):
                    yield cls.finding(variable.at, f"The secret {name} is written in the file.", _FIX_COMPOSE)
