"""Serve the HTML pages of a server from files of this package, without requests to other hosts."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["CONTENT_SECURITY_POLICY", "FILES", "page"]

CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The header of every page: no inline code runs, and nothing is loaded from other hosts."""

FILES = {
    **{
        f"{name}.js": "text/javascript; charset=utf-8"
        for name in ("docs", "answer", "code", "dom", "form", "reference", "text")
    },
    "docs.css": "text/css; charset=utf-8",
    "es.json": "application/json",
    "favicon.svg": "image/svg+xml",
}
"""Content types of the page's files, which are served below `docs/`."""


def page(path: str) -> tuple[bytes, str] | None:
    """The content and content type of `path` (such as `docs/docs.js`, without a leading slash); None if unknown.

    Paths inside the page are relative, so it works behind any prefix. `docs/`, with a slash behind, must redirect to
    `docs`: relative paths would point elsewhere.
    """
    if path == "docs":
        return _read("docs.html"), "text/html; charset=utf-8"
    folder, _, name = path.rpartition("/")
    return (_read(name), FILES[name]) if folder == "docs" and name in FILES else None


def _read(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
