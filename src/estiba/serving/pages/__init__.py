"""Serve the HTML pages of a server from files of this package, without requests to other hosts."""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from typing import NamedTuple

from estiba.serving.http.compression import PAGE_LEVEL, gzipped

__all__ = ["CONTENT_SECURITY_POLICY", "FILES", "SECURITY_HEADERS", "Pages", "page"]

CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "font-src 'self'",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
))  # fmt: skip
"""Nothing is loaded from other hosts, no inline code runs, and no text becomes code or HTML."""

SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""The headers of every page and its files. Every answer of the server has X-Content-Type-Options besides."""

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


class _File:
    """A file of the pages, compressed when it is first asked for in that form."""

    def __init__(self, content: bytes, kind: str) -> None:
        self.content = content
        self.kind = kind

    @cached_property
    def compressed(self) -> bytes:
        return gzipped(self.content, PAGE_LEVEL)


class PageForm(NamedTuple):
    """A file of the pages in the form that a client accepts, and its headers."""

    content: bytes
    headers: dict[str, str]


class Pages:
    """The files of the pages, read and compressed once."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def get(self, path: str, *, gzip: bool) -> PageForm | None:
        """The file at `path`, as `page` takes it; None if there is none."""
        file = self._files.get(path)
        if file is None:
            known = page(path)
            if known is None:
                return None
            file = self._files[path] = _File(*known)
        headers = {"content-type": file.kind, **SECURITY_HEADERS, "cache-control": "no-cache"}
        headers["vary"] = "accept-encoding"
        if gzip:
            return PageForm(file.compressed, {**headers, "content-encoding": "gzip"})
        return PageForm(file.content, headers)


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
