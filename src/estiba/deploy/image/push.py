"""Push: images sent to the registry that their name says, and known from then on by the digest that it keeps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from estiba.core import shell
from estiba.core.errors import BadProject, EstibaError, NotFound, Unavailable
from estiba.core.stores.disk import explained, temporary
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.plan import image_options
from estiba.deploy.plan.plan import Plan

_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")

_DIGEST = re.compile(r"\bdigest: (sha256:[0-9a-f]{64})\b")

_UNREACHABLE = (
    "connection refused",
    "connection reset",
    "no such host",
    "no route to host",
    "network is unreachable",
    "timeout",
    "deadline exceeded",
)

_HINTS = (
    (
        ("http response to https",),
        "That registry has no TLS: give it a certificate, or name it as insecure in the settings of {program}.",
    ),
    (
        ("x509", "certificate"),
        "Its certificate is not trusted here: add the authority that signed it to the settings of {program}.",
    ),
    (
        ("name unknown", "name_unknown", "does not exist"),
        "Make the repository in the registry first; some do not make one by themselves.",
    ),
    (
        ("no basic auth", "unauthorized", "authentication required", "denied", "forbidden"),
        "Log in as one who may write there: {program} login {host}",
    ),
)


def check(names: Sequence[str], *, layout: bool) -> None:
    """Refuses early, before anything is built, what could not be sent.

    Args:
        layout: whether they will be OCI layouts, which skopeo sends.

    Raises:
        BadProject: a name says no registry. NotFound: there is no skopeo.
    """
    for name in names:
        if not image_options.host(name):
            hint = 'In estiba.toml: [images] repository = "ghcr.io/acme/shop", or "docker.io/acme" for Docker Hub.'
            raise BadProject(f"images.repository: the name {name} says no registry to send it to.", hint=hint)
    if layout and shutil.which("skopeo") is None:
        hint = "Install skopeo, or leave out --oci so that the container engine sends what it built."
        raise NotFound("OCI layouts are sent by skopeo, which is not here.", hint=hint)


def push(engine: Engine, name: str, on_line: Callable[[str], None]) -> str:
    """Sends an image that a container engine has.

    Args:
        on_line: is told what the program says.

    Returns:
        Its name with the digest that the registry has it by, `ghcr.io/acme/shop/models:8c0aa2876e1e@sha256:...`.

    Raises:
        Unavailable: the registry cannot be reached. EstibaError: it refuses the image.
    """
    if engine.program == "docker":
        return _named(name, _DIGEST.findall(_said([engine.program, "push", name], name, on_line)))
    return _with_digest_file([engine.program, "push", *_without_tls(name, "--tls-verify")], [name], name, on_line)


def push_layout(layout: Path, name: str, on_line: Callable[[str], None]) -> str:
    """Sends the image of an OCI layout with skopeo, byte by byte as it is; as `push` otherwise."""
    # The layout is the working folder, as a colon in its path would end that path.
    words = ["skopeo", "copy", "--preserve-digests", *_without_tls(name, "--dest-tls-verify")]
    return _with_digest_file(words, [f"oci:.:{name.rpartition(':')[2]}", f"docker://{name}"], name, on_line, layout)


class _Sent(msgspec.Struct):
    """What `estiba build --push --json` prints of an image, of which this is all that is needed."""

    image: str
    pushed: Annotated[str, Meta(pattern="@sha256:[0-9a-f]{64}$")] | None = None


def pinned(plan: Plan, file: Path) -> Plan:
    """The plan with images by the digests that the registry has them by; those that were not sent stay as they are.

    Args:
        file: what `estiba build --push --json` printed.

    Raises:
        NotFound: no such file. BadProject: it is something else, or none of its images is one of the plan's.
    """
    with explained("read", file):
        text = file.read_bytes()
    hint = "Make it with: estiba build --push --json > FILE"
    try:
        sent = {one.image: one.pushed for one in msgspec.json.decode(text, type=list[_Sent]) if one.pushed}
    except msgspec.MsgspecError as error:
        raise BadProject(f"{file} does not say which images were pushed: {error}", hint=hint) from None
    if not sent:
        raise BadProject(f"{file} names no image that was pushed.", hint=hint)
    if not any(service.image in sent for service in plan.services):
        hint = "The project has changed since: build and push again."
        raise BadProject(f"{file} names no image that the project has now.", hint=hint)
    services = [replace(service, image=sent.get(service.image, service.image)) for service in plan.services]
    return replace(plan, services=tuple(services))


def _without_tls(name: str, option: str) -> list[str]:
    """A registry on this machine's loopback may do without TLS, which docker allows by itself and the others do not."""
    return [f"{option}=false"] if _LOOPBACK.fullmatch(image_options.host(name)) else []


def _with_digest_file(
    words: list[str], places: list[str], name: str, on_line: Callable[[str], None], folder: Path | None = None
) -> str:
    with temporary("push") as work:
        digest = work / "digest"
        _said([*words, "--digestfile", str(digest), *places], name, on_line, folder)
        with explained("read", digest):
            return _named(name, [digest.read_text().strip()])


def _said(command: list[str], name: str, on_line: Callable[[str], None], folder: Path | None = None) -> str:
    done = shell.run(command, folder=folder, on_line=on_line)
    if done.code:
        raise _refusal(command[0], name, done.output)
    return done.output


def _named(name: str, digests: list[str]) -> str:
    if not digests:
        raise EstibaError(f"{name} was sent, but the registry did not say by which digest it keeps it.")
    return f"{name}@{digests[-1]}"


def _refusal(program: str, name: str, said: str) -> EstibaError:
    host, lines = image_options.host(name), [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if any(sign in last.lower() for sign in _UNREACHABLE):
        hint = "Check `repository` in [images], and the network. The image is built: the next build is quick."
        return Unavailable(f"The registry {host} cannot be reached, so {name} was not pushed: {last}", hint=hint)
    known = (hint for signs, hint in _HINTS if any(sign in last.lower() for sign in signs))
    hint = next(known, "The image is built and has its name: say the same again, or push it with {program} yourself.")
    return EstibaError(f"The registry {host} did not take {name}: {last}", hint=hint.format(program=program, host=host))
