"""The pages that a server shows in a browser: files of this package, which ask nothing of the internet."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["CONTENT_SECURITY_POLICY", "FILES", "page"]

CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The header to send with every page: nothing inline runs, and nothing is loaded from elsewhere."""

FILES = {
    **{
        f"{name}.js": "text/javascript; charset=utf-8"
        for name in ("docs", "answer", "code", "dom", "form", "reference")
    },
    "docs.css": "text/css; charset=utf-8",
    "favicon.svg": "image/svg+xml",
}
"""Content types of the files that the page is made of; each is served below `docs/`."""


def page(path: str) -> tuple[bytes, str] | None:
    """Content and content type of `path` (`docs`, `docs/docs.js`: no slash in front); None where there is none.

    Paths inside the page are relative, so it works behind any prefix. `docs/`, with a slash behind, must redirect to
    `docs`: relative paths would point elsewhere.
    """
    if path == "docs":
        return _read("docs.html"), "text/html; charset=utf-8"
    folder, _, name = path.rpartition("/")
    return (_read(name), FILES[name]) if folder == "docs" and name in FILES else None


def _read(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
