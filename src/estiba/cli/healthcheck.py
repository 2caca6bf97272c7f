"""estiba healthcheck."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  estiba healthcheck
  estiba healthcheck http://127.0.0.1:9000
  HEALTHCHECK CMD ["estiba", "healthcheck"]     in a Dockerfile
"""
)
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--timeout", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds to wait.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Certificates to trust.")
def healthcheck(url: str, timeout: float, ca_file: str | None) -> int:
    """Check that a server is ready: exit code 0 if it is, 1 if not.

    URL is the address of the server. If it has a path, that path is requested instead of /health/ready.
    """
    import ssl
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    if "://" not in url:
        url = f"http://{url}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise click.BadParameter("must begin with http:// or https://", param_hint="URL")
    handlers = [HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))] if ca_file else []
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + "/health/ready"
    try:
        # No proxy of the environment: it would look for the server on its own machine.
        with build_opener(ProxyHandler({}), *handlers).open(url, timeout=timeout) as answer:
            click.echo(f"{url}: ready ({answer.status})")
            return 0
    except HTTPError as error:
        error.close()
        click.echo(f"{url}: not ready ({error.code})", err=True)
    except (OSError, ValueError) as error:
        click.echo(f"{url}: no answer ({getattr(error, 'reason', error)})", err=True)
    return 1
