"""Dockerfile: a recipe as a file that a person reads and docker, podman and buildah build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from estiba.deploy.image.spec import Recipe, variables
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_INTERVAL_SECONDS, MAX_HEALTH_FAILURES

DOCKERFILE = "Dockerfile"
IGNORE = ".dockerignore"

_PIP = (
    "pip install --no-cache-dir --root-user-action=ignore --no-index --find-links /wheels \\\n"
    "      --require-hashes --no-deps --ignore-installed --no-compile --no-warn-script-location"
)


def render(recipe: Recipe) -> str:
    """The Dockerfile of an image. Its context is what `estiba.deploy.image.build_context` assembles."""
    stages = [_build_stage(recipe), _final_scratch(recipe) if recipe.style == "scratch" else _final_slim(recipe)]
    return "\n\n".join(["\n".join(_head(recipe)), *("\n".join(stage) for stage in stages)]) + "\n"


def ignore(recipe: Recipe) -> str:
    """The .dockerignore of an image: nothing goes in that was not named."""
    names = ["requirements.txt", "wheels", "tools"]
    names += ["code"] if recipe.has_estiba else []
    names += ["models"] if recipe.models else []
    names += ["app"] if recipe.include else []
    return "\n".join(["# Nothing but what the Dockerfile names.", "*", *(f"!{name}" for name in names)]) + "\n"


def _head(recipe: Recipe) -> Iterator[str]:
    yield f"# The image of {recipe.service} in {recipe.project}, as `estiba build` makes it. Written by Estiba."
    if recipe.style == "scratch":
        yield "# Only what runs: no shell, no package manager."


def _build_stage(recipe: Recipe) -> Iterator[str]:
    yield f"FROM {recipe.base} AS build"
    yield "# The same input gives the same bytes: one time for all files, one order for sets."
    yield "ARG SOURCE_DATE_EPOCH=0"
    yield "ENV PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/tools"
    if recipe.packages:
        yield from _packages(recipe.packages)
    yield ""
    yield "# What changes least first: packages, each a wheel named by its SHA-256. The network is not needed."
    yield "COPY tools/ /tools/"
    yield "COPY requirements.txt /"
    yield "RUN --mount=type=bind,source=wheels,target=/wheels \\"
    yield f"    {_PIP} \\"
    yield "      --prefix /packages/usr/local -r /requirements.txt && \\"
    yield f"    python -m estiba.deploy.image.slim.trim_packages /packages {recipe.level} packages"
    if recipe.style == "scratch":
        yield f"RUN python -m estiba.deploy.image.slim.rootfs /root-fs {recipe.level} / /packages"
    else:
        yield f"RUN python -m estiba.deploy.image.slim.rootfs bytecode /bytecode {recipe.level} /"
    if recipe.has_estiba:
        yield ""
        yield "# Then Estiba itself."
        yield "RUN --mount=type=bind,source=code,target=/code \\"
        yield "    pip install --no-cache-dir --root-user-action=ignore --no-index --no-deps --no-compile \\"
        yield "      --ignore-installed --prefix /server/usr/local /code/*.whl && \\"
        level = "server" if recipe.models else "app"
        yield f"    python -m estiba.deploy.image.slim.trim_packages /server {level} server"
    if recipe.volumes:
        yield ""
        yield "# A fresh volume gets owner and rights of what it is mounted over: group 0 may write to it."
        yield f"RUN install -d -m 0770 {' '.join(f'/volumes{place}' for place in recipe.volumes)} && \\"
        yield "    find /volumes -exec touch --date=@0 {} +"


def _packages(names: Sequence[str]) -> Iterator[str]:
    listed = " ".join(sorted(names))
    yield "# hadolint ignore=DL3008"
    yield f"RUN apt-get update && apt-get install -y --no-install-recommends {listed} && \\"
    yield "    rm -rf /var/lib/apt/lists/*"


def _final_slim(recipe: Recipe) -> Iterator[str]:
    yield f"FROM {recipe.base}"
    if recipe.packages:
        yield from _packages(recipe.packages)
    yield "# Bytecode of Python's own library: a read-only image cannot write it when it starts."
    yield "COPY --from=build /bytecode/ /"
    yield "COPY --from=build /packages/ /"
    yield from _contents(recipe)


def _final_scratch(recipe: Recipe) -> Iterator[str]:
    yield "FROM scratch"
    yield "# Python with the part of its library that runs, and the shared libraries that all of it needs."
    yield "COPY --from=build /root-fs/ /"
    yield "COPY --from=build /packages/ /"
    yield from _contents(recipe)


def _contents(recipe: Recipe) -> Iterator[str]:
    if recipe.has_estiba:
        yield "COPY --from=build /server/ /"
    if recipe.volumes:
        yield "COPY --from=build /volumes/ /"
    if recipe.include:
        yield "COPY app/ /app/"
    if recipe.models:
        if recipe.registry:
            yield "# Settings of the server only: a container gets the models from a registry."
        else:
            yield "# The models: a registry that is read only."
        yield "COPY models/ /models/"
    yield ""
    for name, value in variables(recipe).items():
        yield f"ENV {name}={_quoted(value)}"
    yield f"WORKDIR {recipe.folder}"
    yield "# Any other user of group 0 may run it too; nothing is written outside /tmp."
    yield f"USER {recipe.user}:0"
    if recipe.port is not None:
        yield f"EXPOSE {recipe.port}"
    yield f"STOPSIGNAL {recipe.stop_signal}"
    yield from _start(recipe)
    yield ""
    yield "LABEL " + " \\\n      ".join(f"{name}={_quoted(value)}" for name, value in recipe.labels.items())


def _start(recipe: Recipe) -> Iterator[str]:
    if recipe.health:
        yield (
            f"HEALTHCHECK --interval={HEALTH_INTERVAL_SECONDS}s --timeout={HEALTH_COMMAND_TIMEOUT_SECONDS}s "
            f"--start-period={recipe.start_timeout:g}s --retries={MAX_HEALTH_FAILURES} CMD {_words(recipe.health)}"
        )
    else:
        yield "HEALTHCHECK NONE"
    if recipe.entrypoint:
        yield f"ENTRYPOINT {_words(recipe.entrypoint)}"
    if recipe.command:
        yield f"CMD {_words(recipe.command)}"


def _words(words: Sequence[str]) -> str:
    return json.dumps(list(words))


def _quoted(text: str) -> str:
    plain = text and all(letter.isalnum() or letter in "._-/:@" for letter in text)
    return text if plain else json.dumps(text).replace("$", "\\$")
