"""Rules about programs that run as root, and files that the program's user may not read or write."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from posixpath import dirname
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.compose_file import Mount
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.dockerfile_stages import Stage, resolve_path
from estiba.doctor.read.image_names import ImageName, parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.python_sources import FileUse, written_files
from estiba.doctor.rule import Rule

_CHANGES_OWNER = re.compile(r"\b(?:chown|chmod|install\s+-d|useradd|adduser|mkdir)\b[^&;|]*")
_WRITABLE_BY_ALL = ("/tmp", "/var/tmp", "/dev", "/proc", "/run/secrets")
_DENIED = re.compile(r"Permission denied:? ?['\"]?([^'\"\n]*)['\"]?", re.I)
_ERRNO_13 = re.compile(r"\[Errno 13\] Permission denied: ?['\"]?([^'\"\n]*)['\"]?")
_INIT = ("/sbin/docker-init", "tini", "docker-init")


class RootUser(Rule):
    code = "root-user"
    severity = "warning"
    title = "The program runs as root."
    reason = (
        "A fault in the program, or in a library that reads a request, gives an intruder every file of the container, "
        "and with a mounted folder those of the host too."
    )
    example: ClassVar = {"Dockerfile": 'FROM python:3.12-slim\nCMD ["python", "-m", "http.server", "8000"]\n'}
    remedy = "Add before CMD: `RUN useradd --system --uid 10001 app`, and `USER 10001`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        image, final = container.image, container.final
        if image is None or final is None or not final.base or container.non_root or image.for_windows:
            return
        user, base = str(container.user or ""), parse_image_name(final.base)
        starts = container.service is not None or final.last_step("CMD") or final.last_step("ENTRYPOINT")
        if "$" in user or not starts or (not user and not base.maybe_root):
            return
        steps = list(final.steps_of("USER"))
        service_user = container.service.node.get("user") if container.service else None
        at = service_user.at if service_user else image.at((steps[-1] if steps else final).instruction.line)
        because = f"`{user}` is named as its user" if user else "no USER is named"
        probably = "" if user or base.known_root else "probably "
        below = final.user.partition(":")[0]
        fix = _add_user(base)
        if service_user:
            fix = "Remove the line, and name another user with USER in the Dockerfile."
            if below and below not in ("root", "0"):
                fix = f"Remove the line: the Dockerfile names USER {below}."
        yield cls.finding(at, f"The program {probably}runs as root, as {because}.", fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        """Check the users of the processes, as many images start as root and switch to another user."""
        rows = [line.split(None, 2) for line in container.processes.splitlines()[1:]]
        users = {row[1] for row in rows if len(row) == 3 and not row[2].startswith(_INIT)}
        user = str(container.part("Config", "User") or "").partition(":")[0]
        if users == {"0"} or (not users and container.runs and user in ("root", "0")):
            because = f"`{user}` is its user" if user else "nothing names another user"
            fix = "Write USER in the Dockerfile, or user: in the compose file."
            yield cls.finding(container.at, f"It runs as root, as {because}.", fix)


def _add_user(base: ImageName) -> str:
    """Return the remedy for a base image: without a shell only USER, on Alpine its adduser."""
    if base.name == "scratch" or re.search(r"distroless|ubi-?\d*-micro|/ubi\d*/ubi-micro|cgr\.dev/", base.name):
        return "Add before CMD: USER 10001."
    if base.name == "alpine" or "alpine" in base.tag:
        return "Add before CMD: RUN adduser -S -D -H -u 10001 app, and USER 10001."
    return "Add before CMD: RUN useradd --system --uid 10001 app, and USER 10001."


class DockerSocket(Rule):
    code = "docker-socket"
    severity = "warning"
    title = "The socket of Docker is mounted into a container."
    reason = (
        "Whoever gets into the container can start another one with every file of the host, so it is as good as root "
        "on the machine. Mounting it read-only changes nothing: the requests are what counts."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  proxy:\n    image: traefik:v3.2\n    restart: unless-stopped\n"
        "    volumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']\n",
    }
    remedy = "Remove the volume, or put a proxy before the socket that lets through only the requests that are needed."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        for mount in container.mounts:
            if mount.source in ("/var/run/docker.sock", "/run/docker.sock") and not container.for_development:
                message = f"{container.name} gets the socket of Docker, and with it every right of root on the machine."
                yield cls.finding(mount.at, message, "Remove it, or mount the socket of a proxy that filters requests.")


class PermissionDenied(Rule):
    code = "permission-denied"
    severity = "error"
    title = "The program may not read or write a file that it needs."
    reason = (
        "WORKDIR and COPY make files of root, whatever USER follows. The program fails when it first writes a log, or "
        "reads a file that only its owner may read."
    )
    example: ClassVar = {
        "app/main.py": "import logging\n\nfrom fastapi import FastAPI\n\n"
        'app = FastAPI()\nhandler = logging.FileHandler("/app/app.log")\n',
    }
    remedy = (
        "Copy with `--chown`, or `RUN mkdir -p` and `chown` the folder before USER; better, write to a volume or to "
        "standard output."
    )
    explains_exit = True

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        image, final = container.image, container.final
        if image is None or final is None or not final.base or not container.non_root:
            return
        yield from cls._unreadable(container, image, final)
        yield from cls._unwritable(container, image, final)
        yield from cls._volumes(container, image, final)

    @classmethod
    def _unreadable(cls, container: Container, image: Image, final: Stage) -> Iterator[Finding]:
        """Check for files that keep a mode by which only their owner, root, may read them."""
        for path, copied in image.contents.files.items():
            entry = image.context.entries.get(copied.source)
            readable = entry is None or entry.folder or copied.owner or copied.mode or entry.mode & stat.S_IROTH
            if readable or entry is None or container.mount_of(path) is not None or _given(path, final):
                continue
            mode, source = stat.filemode(entry.mode), copied.source
            message = f"`{source}` is copied as root's with the mode {mode}, so {_user(container)} cannot read it."
            fix = f"Copy it with --chown={container.user}, or let others read it: chmod a+r {source}."
            yield cls.finding(image.at(copied.step.instruction.line), message, fix)
            return

    @classmethod
    def _unwritable(cls, container: Container, image: Image, final: Stage) -> Iterator[Finding]:
        """Check for files that the code writes into a folder of root."""
        for module in container.modules:
            for use in written_files(module, container.code_environment):
                folder = dirname(use.path) or "/"
                if _may_write(use, folder, container, final):
                    continue
                probably = "probably " if not use.sure else ""
                message = (
                    f"The program writes `{use.path}`, and {probably}{_user(container)} may not write in `{folder}`."
                )
                chown = f"RUN mkdir -p {folder} && chown {container.user} {folder}"
                yield cls.finding(
                    image.context.at(use.file, use.line), message, f"Before USER: {chown}; better, write to a volume."
                )
                return

    @classmethod
    def _volumes(cls, container: Container, image: Image, final: Stage) -> Iterator[Finding]:
        """Check for volumes at a path that the image does not have, which Docker creates as folders of root."""
        for mount in container.mounts if container.service is not None else ():
            if mount.kind != "volume" or mount.read_only or not _created_by_docker(mount, container):
                continue
            target = resolve_path("/", mount.target)
            if target.startswith(_WRITABLE_BY_ALL) or _given(target, final) or _home(target, final):
                continue
            if not _runs_script(image):
                message = (
                    f"The volume at `{target}` belongs to root, so {_user(container)} probably cannot write to it."
                )
                fix = f"In the Dockerfile, before USER: RUN mkdir -p {target} && chown {container.user} {target}."
                yield cls.finding(mount.at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if match := (_DENIED if container.crashed else _ERRNO_13).search(container.log):
            file = f"`{match[1].strip()}`" if match[1].strip() else "a file"
            user = container.part("Config", "User") or "root"
            message = f"It runs as user {user}, who has no right to {file}."
            fix = f"Give it to that user: COPY --chown={user}, or RUN chown in the Dockerfile before USER."
            yield cls.finding(container.at, message, fix)


def _may_write(use: FileUse, folder: str, container: Container, final: Stage) -> bool:
    if folder.startswith(_WRITABLE_BY_ALL) or container.mount_of(use.path) is not None:
        return True
    files = container.image.contents.files if container.image is not None else {}
    owned = use.path in files and bool(files[use.path].owner)
    copied_folder = any(file.owner and path.startswith(folder + "/") for path, file in files.items())
    given = owned or (copied_folder and not _work_folder(folder, final))
    return given or _given(folder, final) or _home(folder, final)


def _work_folder(folder: str, final: Stage) -> bool:
    """Return True if WORKDIR creates a folder: it stays root's, whatever is copied into it."""
    created = [
        resolve_path(step.folder, (step.arguments or ("/",))[0]) for step in final.steps_of("WORKDIR") if not step.user
    ]
    return any((path + "/").startswith(folder + "/") for path in created)


def _given(path: str, final: Stage) -> bool:
    """Return True if an instruction may give a path, or a folder above it, to another user than root."""
    above = [path]
    while above[-1] not in ("/", ""):
        above.append(dirname(above[-1]))
    created: set[str] = set()
    for step in final.all_steps:
        target = resolve_path(step.folder, (step.arguments or ("/",))[-1])
        if step.instruction.name == "WORKDIR":
            if step.user and target in above:
                return True  # BuildKit makes it for the user named before
            created.add(target)
        if step.instruction.name in ("COPY", "ADD") and step.instruction.flags.get("chown") and target in above[:-1]:
            if not any((folder + "/").startswith(target + "/") for folder in created):
                return True  # a folder that exists already keeps its owner
        elif step.instruction.name == "RUN" and _run_gives(step.text, step.folder, above, bool(step.user)):
            return True
    return False


def _run_gives(text: str, folder: str, above: list[str], as_user: bool) -> bool:
    for command in _CHANGES_OWNER.findall(text):
        if command.startswith("mkdir") and not as_user:
            continue
        arguments = command.split()[1:]
        if any("$" in argument for argument in arguments):
            return True
        if command.startswith(("useradd", "adduser")):
            arguments = [*re.findall(r"(?:-d|--home(?:-dir)?)[\s=]+(/\S+)", command), "-R"]
        recursive = any(re.match(r"-\w*R|--recursive", argument) for argument in arguments)
        paths = [resolve_path(folder, argument) for argument in arguments if not argument.startswith("-")]
        if any(path in (above if recursive else above[:1]) for path in paths if path != "/"):
            return True
    return False


def _home(folder: str, final: Stage) -> bool:
    creates_user = any("useradd" in step.text or "adduser" in step.text for step in final.steps_of("RUN"))
    return creates_user and folder.startswith("/home/")


def _created_by_docker(mount: Mount, container: Container) -> bool:
    """Return True if Docker creates the volume itself, so that it takes owner and files from the image."""
    declared = container.compose.volumes.get(mount.source) if container.compose and mount.source else None
    return not (declared and (declared.get("external") or declared.get("driver_opts") or declared.get("driver")))


def _runs_script(image: Image) -> bool:
    """Return True if a script runs that may set owners and modes."""
    final = image.final
    steps = final.steps_of("RUN", "ENTRYPOINT", "CMD") if final is not None else ()
    return final is None or any(re.search(r"\.sh\b", step.text) for step in steps)


def _user(container: Container) -> str:
    return f"user {str(container.user).partition(':')[0]}"
