"""Render the Dockerfile of an image, for people to read and for docker, podman and buildah to build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from estiba.deploy.image.spec import ImageSpec
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_INTERVAL_SECONDS, MAX_HEALTH_FAILURES

DOCKERFILE = "Dockerfile"
IGNORE = ".dockerignore"

_PIP = (
    "pip install --no-cache-dir --root-user-action=ignore --no-index --find-links /wheels \\\n"
    "      --require-hashes --no-deps --ignore-installed --no-compile --no-warn-script-location"
)


def render(spec: ImageSpec) -> str:
    """The Dockerfile of an image; `estiba.deploy.image.build_context` assembles its context."""
    stages = [_build_stage(spec), _final_scratch(spec) if spec.style == "scratch" else _final_slim(spec)]
    return "\n\n".join(["\n".join(_head(spec)), *("\n".join(stage) for stage in stages)]) + "\n"


def ignore(spec: ImageSpec) -> str:
    """The .dockerignore of an image: only named files are sent to the builder."""
    names = ["requirements.txt", "wheels", "tools"]
    names += ["code"] if spec.has_estiba else []
    names += ["models"] if spec.contents.models else []
    names += ["app"] if spec.contents.include else []
    return "\n".join(["# Only the files that the Dockerfile names.", "*", *(f"!{name}" for name in names)]) + "\n"


def _head(spec: ImageSpec) -> Iterator[str]:
    yield f"# The image of {spec.service} in {spec.project}, as `estiba build` makes it. Written by Estiba."
    if spec.style == "scratch":
        yield "# Only files that are used at run time: no shell, no package manager."


def _build_stage(spec: ImageSpec) -> Iterator[str]:
    yield f"FROM {spec.contents.base} AS build"
    yield "# The same input gives the same bytes: one time for all files, one order for sets."
    yield "ARG SOURCE_DATE_EPOCH=0"
    yield "ENV PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/tools"
    if spec.contents.packages:
        yield from _packages(spec.contents.packages)
    yield ""
    yield "# Packages first, as they change least: each is a wheel named by its SHA-256. The network is not needed."
    yield "COPY tools/ /tools/"
    yield "COPY requirements.txt /"
    yield "RUN --mount=type=bind,source=wheels,target=/wheels \\"
    yield f"    {_PIP} \\"
    yield "      --prefix /packages/usr/local -r /requirements.txt && \\"
    yield f"    python -m estiba.deploy.image.slim.trim_packages /packages {spec.contents.trim_level} packages"
    if spec.style == "scratch":
        yield f"RUN python -m estiba.deploy.image.slim.rootfs /root-fs {spec.contents.trim_level} / /packages"
    else:
        yield f"RUN python -m estiba.deploy.image.slim.rootfs bytecode /bytecode {spec.contents.trim_level} /"
    if spec.has_estiba:
        yield ""
        yield "# Then Estiba itself. Copied, because podman's layer cache does not look into mounted folders."
        yield "COPY code/ /code/"
        yield "RUN pip install --no-cache-dir --root-user-action=ignore --no-index --no-deps --no-compile \\"
        yield "      --ignore-installed --prefix /server/usr/local /code/*.whl && \\"
        level = "server" if spec.contents.models else "app"
        yield f"    python -m estiba.deploy.image.slim.trim_packages /server {level} server"
    if spec.runtime.volumes:
        yield ""
        yield "# A new volume gets the owner and mode of the folder that it is mounted over: group 0 may write to it."
        yield f"RUN install -d -m 0770 {' '.join(f'/volumes{path}' for path in spec.runtime.volumes)} && \\"
        yield "    find /volumes -exec touch --date=@0 {} +"


def _packages(names: Sequence[str]) -> Iterator[str]:
    listed = " ".join(sorted(names))
    yield "# hadolint ignore=DL3008"
    yield f"RUN apt-get update && apt-get install -y --no-install-recommends {listed} && \\"
    yield "    rm -rf /var/lib/apt/lists/*"


def _final_slim(spec: ImageSpec) -> Iterator[str]:
    yield f"FROM {spec.contents.base}"
    if spec.contents.packages:
        yield from _packages(spec.contents.packages)
    yield "# Bytecode of Python's own library: a read-only image cannot write it when it starts."
    yield "COPY --from=build /bytecode/ /"
    yield "COPY --from=build /packages/ /"
    yield from _contents(spec)


def _final_scratch(spec: ImageSpec) -> Iterator[str]:
    yield "FROM scratch"
    yield "# Python with the used part of its library, and the shared libraries that are needed."
    yield "COPY --from=build /root-fs/ /"
    yield "COPY --from=build /packages/ /"
    yield from _contents(spec)


def _contents(spec: ImageSpec) -> Iterator[str]:
    if spec.has_estiba:
        yield "COPY --from=build /server/ /"
    if spec.runtime.volumes:
        yield "COPY --from=build /volumes/ /"
    if spec.contents.include:
        yield "COPY app/ /app/"
    if spec.contents.models:
        if spec.contents.registry:
            yield "# Only settings of the server: a container gets the models from a registry."
        else:
            yield "# The models: a registry, which is only read."
        yield "COPY models/ /models/"
    yield ""
    for name, value in spec.variables.items():
        yield f"ENV {name}={_quoted(value)}"
    yield f"WORKDIR {spec.process.workdir}"
    yield "# Any other user of group 0 may run it too; nothing is written outside /tmp."
    yield f"USER {spec.process.user}:0"
    if spec.process.port is not None:
        yield f"EXPOSE {spec.process.port}"
    yield f"STOPSIGNAL {spec.process.stop_signal}"
    yield from _start(spec)
    yield ""
    yield "LABEL " + " \\\n      ".join(f"{name}={_quoted(value)}" for name, value in spec.labels.items())


def _start(spec: ImageSpec) -> Iterator[str]:
    process = spec.process
    if process.health:
        yield (
            f"HEALTHCHECK --interval={HEALTH_INTERVAL_SECONDS}s --timeout={HEALTH_COMMAND_TIMEOUT_SECONDS}s "
            f"--start-period={spec.runtime.start_timeout:g}s --retries={MAX_HEALTH_FAILURES} "
            f"CMD {_exec(process.health)}"
        )
    else:
        yield "HEALTHCHECK NONE"
    if process.entrypoint:
        yield f"ENTRYPOINT {_exec(process.entrypoint)}"
    if process.command:
        yield f"CMD {_exec(process.command)}"


def _exec(argv: Sequence[str]) -> str:
    """The exec form of an instruction, which needs no shell."""
    return json.dumps(list(argv))


def _quoted(text: str) -> str:
    plain = text and all(letter.isalnum() or letter in "._-/:@" for letter in text)
    return text if plain else json.dumps(text).replace("$", "\\$")
