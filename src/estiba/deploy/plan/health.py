"""The command that checks the health of a service from inside its container."""

from __future__ import annotations

from collections.abc import Callable

from estiba.deploy.plan.plan import Command, Http, Service, Tcp
from estiba.deploy.plan.timing import HEALTH_TIMEOUT_SECONDS

HOST = "127.0.0.1"

_GET = (
    "import sys, http.client as h; "
    "c = h.HTTPConnection('{host}', {port}, timeout={timeout}); "
    "c.request('GET', '{path}'); s = c.getresponse().status; "
    "sys.exit(s != 200 and 'answered ' + str(s) + ', not 200')"
)

_CONNECT = "import socket; socket.create_connection(('{host}', {port}), {timeout}).close()"


def command(service: Service, resolve: Callable[[str], str]) -> tuple[str, ...]:
    """The health check of a service as an argv that exits with 0 if the service is healthy.

    It only uses programs that the image surely has: Estiba in an image of models, Python in an image of an
    application, and wget in an image that Estiba does not build. No proxy of the environment is ever asked, because a
    proxy would look for the service on its own machine.

    Args:
        resolve: replaces the references in an argument of a health command.

    Returns:
        The argv; empty where the service has no health check, or its image no program that could connect to a port.
    """
    match service.health:
        case Http(path):
            return _get(service, path)
        case Tcp() if service.build is not None:
            return _python(_CONNECT, service)
        case Command(argv):
            return tuple(resolve(argument) for argument in argv)
    return ()


def _get(service: Service, path: str) -> tuple[str, ...]:
    timeout, url = str(HEALTH_TIMEOUT_SECONDS), f"http://{HOST}:{service.port}{path}"
    if service.models:
        return ("estiba", "healthcheck", "--timeout", timeout, url)
    if service.build is not None:
        return _python(_GET, service, path)
    # GNU wget and BusyBox's both know this form of "no proxy".
    return ("wget", "--quiet", "--spider", "--proxy=off", f"--timeout={timeout}", url)


def _python(code: str, service: Service, path: str = "") -> tuple[str, ...]:
    return ("python", "-c", code.format(host=HOST, port=service.port, path=path, timeout=HEALTH_TIMEOUT_SECONDS))
