"""Whose program runs, and whether that user may read and write what the program does."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from posixpath import dirname

from estiba.doctor.catalogue import Finding, finding
from estiba.doctor.read.compose_file import Mount
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_stages import Stage, joined
from estiba.doctor.read.python_sources import FileUse, writes
from estiba.doctor.rules.base_images import base

_GIVES = re.compile(r"\b(?:chown|chmod|install\s+-d|useradd|adduser|mkdir)\b[^&;|]*")
_OPEN = ("/tmp", "/var/tmp", "/dev", "/proc", "/run/secrets")


def check(container: Container) -> Iterator[Finding]:
    """Root, and what another user is not let do."""
    image, final = container.image, container.final
    if image is None or final is None or not final.base:
        return
    if not container.non_root:
        yield from _root(container, image, final)
        return
    yield from _unreadable(container, image, final)
    yield from _unwritable(container, image, final)
    yield from _volumes(container, image, final)


def _root(container: Container, image: Image, final: Stage) -> Iterator[Finding]:
    user, known = str(container.user or ""), base(final.base)
    starts = container.service is not None or final.last_step("CMD") or final.last_step("ENTRYPOINT")
    if "$" in user or not starts or (not user and not known.maybe_root):
        return
    steps = list(final.steps_of("USER"))
    said = container.service.node.get("user") if container.service else None
    at = said.at if said else image.at((steps[-1].instruction if steps else final.instruction).line)
    how = f"`{user}` is named as its user" if user else "no USER is named"
    sure = "" if user or known.known_root else "probably "
    message = f"The program {sure}runs as root, as {how}."
    fix = "Add before CMD: RUN useradd --system --uid 10001 app, and USER 10001."
    yield finding("root-user", at, message, fix)


def _unreadable(container: Container, image: Image, final: Stage) -> Iterator[Finding]:
    """Files that keep a mode by which only their owner, root, may read them."""
    for path, placed in image.contents.files.items():
        entry = image.context.entries.get(placed.source)
        if entry is None or entry.folder or placed.owner or placed.mode or entry.mode & stat.S_IROTH:
            continue
        if container.mount_of(path) is None and not _given(path, final):
            mode = stat.filemode(entry.mode)
            message = (
                f"`{placed.source}` is copied as root's with the mode {mode}, so {_who(container)} cannot read it."
            )
            fix = f"Copy it with --chown={container.user}, or let others read it: chmod a+r {placed.source}."
            yield finding("permission-denied", image.at(placed.step.instruction.line), message, fix)
            return


def _unwritable(container: Container, image: Image, final: Stage) -> Iterator[Finding]:
    """Files that the code writes into a folder of root's."""
    for read in container.modules:
        for place in writes(read, container.code_environment):
            folder = dirname(place.path) or "/"
            if not _may_write(place, folder, container, final):
                said = "probably " if not place.sure else ""
                message = f"The program writes `{place.path}`, and {said}{_who(container)} may not write in `{folder}`."
                fix = (
                    f"Before USER: RUN mkdir -p {folder} && chown {container.user} {folder}; better, write to a volume."
                )
                yield finding("permission-denied", image.context.at(place.file, place.line), message, fix)
                return


def _may_write(place: FileUse, folder: str, container: Container, final: Stage) -> bool:
    if folder.startswith(_OPEN) or container.mount_of(place.path) is not None:
        return True
    image = container.image
    owned = image is not None and place.path in image.contents.files and bool(image.contents.files[place.path].owner)
    brought = image is not None and any(f.owner and p.startswith(folder + "/") for p, f in image.contents.files.items())
    return owned or (brought and not _work_folder(folder, final)) or _given(folder, final) or _home(folder, final)


def _work_folder(folder: str, final: Stage) -> bool:
    """Whether WORKDIR makes a folder, as root's, which it stays whatever is copied into it."""
    made = [joined(step.folder, (step.words or ("/",))[0]) for step in final.steps_of("WORKDIR") if not step.user]
    return any((place + "/").startswith(folder + "/") for place in made)


def _given(path: str, final: Stage) -> bool:
    """Whether some instruction may give a path, or a folder above it, to somebody else than root."""
    above = [path]
    while above[-1] not in ("/", ""):
        above.append(dirname(above[-1]))
    made: set[str] = set()
    for step in final.all_steps:
        target = joined(step.folder, (step.words or ("/",))[-1])
        if step.instruction.name == "WORKDIR":
            if step.user and target in above:
                return True  # BuildKit makes it for the user named before
            made.add(target)
        if step.instruction.name in ("COPY", "ADD") and step.instruction.flags.get("chown") and target in above[:-1]:
            if not any((folder + "/").startswith(target + "/") for folder in made):
                return True  # a folder that is there already keeps its owner
        elif step.instruction.name == "RUN" and _run_gives(step.text, step.folder, above, bool(step.user)):
            return True
    return False


def _run_gives(text: str, folder: str, above: list[str], as_user: bool) -> bool:
    for part in _GIVES.findall(text):
        if part.startswith("mkdir") and not as_user:
            continue
        words = part.split()[1:]
        if any("$" in word for word in words):
            return True
        if part.startswith(("useradd", "adduser")):
            words = [*re.findall(r"(?:-d|--home(?:-dir)?)[\s=]+(/\S+)", part), "-R"]
        deep = any(re.match(r"-\w*R|--recursive", word) for word in words)
        named = [joined(folder, word) for word in words if not word.startswith("-")]
        if any(name in (above if deep else above[:1]) for name in named if name != "/"):
            return True
    return False


def _home(folder: str, final: Stage) -> bool:
    made = any("useradd" in step.text or "adduser" in step.text for step in final.steps_of("RUN"))
    return made and folder.startswith("/home/")


def _volumes(container: Container, image: Image, final: Stage) -> Iterator[Finding]:
    """Volumes on a place that the image does not have, which Docker makes as root's."""
    service = container.service
    for mount in container.mounts:
        if service is None or mount.kind != "volume" or mount.read_only or not _fresh(mount, container):
            continue
        target = joined("/", mount.target)
        if target.startswith(_OPEN) or _given(target, final) or _home(target, final) or not _certain(image):
            continue
        message = f"The volume at `{target}` belongs to root, so {_who(container)} probably cannot write to it."
        fix = f"In the Dockerfile, before USER: RUN mkdir -p {target} && chown {container.user} {target}."
        yield finding("permission-denied", mount.at, message, fix)


def _fresh(mount: Mount, container: Container) -> bool:
    """Whether Docker makes the volume itself, so that it takes owner and files from the image."""
    declared = container.compose.volumes.get(mount.source) if container.compose and mount.source else None
    return not (declared and (declared.get("external") or declared.get("driver_opts") or declared.get("driver")))


def _certain(image: Image) -> bool:
    """Whether all commands that could set rights are known; a script may do anything."""
    final = image.final
    return final is not None and not any(
        re.search(r"\.sh\b", step.text) for step in final.steps_of("RUN", "ENTRYPOINT", "CMD")
    )


def _who(container: Container) -> str:
    user = str(container.user).partition(":")[0]
    return f"user {user}"
