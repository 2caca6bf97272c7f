"""Push images to the registry in their name, and return the digest that the registry has them by."""

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
        "That registry has no TLS: give it a certificate, or list it as insecure in the settings of {program}.",
    ),
    (
        ("x509", "certificate"),
        "Its certificate is not trusted here: add the authority that signed it to the settings of {program}.",
    ),
    (
        ("name unknown", "name_unknown", "does not exist"),
        "Create the repository in the registry first; some registries do not create it on push.",
    ),
    (
        ("no basic auth", "unauthorized", "authentication required", "denied", "forbidden"),
        "Log in as a user with write access: {program} login {host}",
    ),
)


def check(names: Sequence[str], *, layout: bool) -> None:
    """Refuse images that could not be pushed, before anything is built.

    Args:
        layout: True if they will be OCI layouts, which skopeo pushes.

    Raises:
        BadProject: a name contains no registry. NotFound: skopeo is not installed.
    """
    for name in names:
        if not image_options.host(name):
            hint = 'In estiba.toml: [images] repository = "ghcr.io/acme/shop", or "docker.io/acme" for Docker Hub.'
            raise BadProject(f"images.repository: the name {name} contains no registry to push to.", hint=hint)
    if layout and shutil.which("skopeo") is None:
        hint = "Install skopeo, or leave out --oci so that the container engine pushes the image."
        raise NotFound("OCI layouts are pushed by skopeo, which is not installed.", hint=hint)


def push(engine: Engine, name: str, on_line: Callable[[str], None]) -> str:
    """Push an image of a container engine.

    Args:
        on_line: called with each line of the program's output.

    Returns:
        The name with the digest that the registry has the image by, `ghcr.io/acme/shop/models:8c0aa2876e1e@sha256:...`.

    Raises:
        Unavailable: the registry cannot be reached. EstibaError: the registry refuses the image.
    """
    if engine.program == "docker":
        return _named(name, _DIGEST.findall(_output([engine.program, "push", name], name, on_line)))
    return _with_digest_file([engine.program, "push", *_without_tls(name, "--tls-verify")], [name], name, on_line)


def push_layout(layout: Path, name: str, on_line: Callable[[str], None]) -> str:
    """Push the image of an OCI layout with skopeo, byte by byte; see `push`."""
    # skopeo runs in the folder of the layout, because a colon in a path would end the path.
    command = ["skopeo", "copy", "--preserve-digests", *_without_tls(name, "--dest-tls-verify")]
    return _with_digest_file(command, [f"oci:.:{name.rpartition(':')[2]}", f"docker://{name}"], name, on_line, layout)


class _Pushed(msgspec.Struct):
    """The needed part of what `estiba build --push --json` prints for an image."""

    image: str
    pushed: Annotated[str, Meta(pattern="@sha256:[0-9a-f]{64}$")] | None = None


def pinned(plan: Plan, file: Path) -> Plan:
    """Name the images of a plan by their digest in the registry; images that were not pushed keep their name.

    Args:
        file: the output of `estiba build --push --json`.

    Raises:
        NotFound: no such file. BadProject: the file has other contents, or none of its images is in the plan.
    """
    with explained("read", file):
        text = file.read_bytes()
    hint = "Create it with: estiba build --push --json > FILE"
    try:
        images = msgspec.json.decode(text, type=list[_Pushed])
    except msgspec.MsgspecError as error:
        raise BadProject(f"{file} is not a list of pushed images: {error}", hint=hint) from None
    names = {image.image: image.pushed for image in images if image.pushed}
    if not names:
        raise BadProject(f"{file} names no image that was pushed.", hint=hint)
    if not any(service.image in names for service in plan.services):
        hint = "The project has changed since then: build and push again."
        raise BadProject(f"{file} names no image that the project has now.", hint=hint)
    services = [replace(service, image=names.get(service.image, service.image)) for service in plan.services]
    return replace(plan, services=tuple(services))


def _without_tls(name: str, option: str) -> list[str]:
    """The option for a registry on a loopback address, which needs no TLS; docker allows that without an option."""
    return [f"{option}=false"] if _LOOPBACK.fullmatch(image_options.host(name)) else []


def _with_digest_file(
    command: list[str], locations: list[str], name: str, on_line: Callable[[str], None], folder: Path | None = None
) -> str:
    with temporary("push") as work:
        digest = work / "digest"
        _output([*command, "--digestfile", str(digest), *locations], name, on_line, folder)
        with explained("read", digest):
            return _named(name, [digest.read_text().strip()])


def _output(command: list[str], name: str, on_line: Callable[[str], None], folder: Path | None = None) -> str:
    done = shell.run(command, folder=folder, on_line=on_line)
    if done.code:
        raise _refusal(command[0], name, done.output)
    return done.output


def _named(name: str, digests: list[str]) -> str:
    if not digests:
        raise EstibaError(f"{name} was pushed, but the registry did not report its digest.", hint="Push it again.")
    return f"{name}@{digests[-1]}"


def _refusal(program: str, name: str, output: str) -> EstibaError:
    host, lines = image_options.host(name), [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else "it printed nothing"
    if any(sign in last.lower() for sign in _UNREACHABLE):
        hint = "Check `repository` in [images], and the network. The image is built: the next build is quick."
        return Unavailable(f"The registry {host} cannot be reached, so {name} was not pushed: {last}", hint=hint)
    known = (hint for signs, hint in _HINTS if any(sign in last.lower() for sign in signs))
    hint = next(
        known, "The image is built and tagged: run this command again, or push the image with {program} yourself."
    )
    return EstibaError(f"The registry {host} refused {name}: {last}", hint=hint.format(program=program, host=host))
