"""The pages that a server shows in a browser: files of this package, which ask nothing of the internet."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["CONTENT_SECURITY_POLICY", "page"]

CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The header to send with every page: nothing inline runs, and nothing is loaded from elsewhere."""

_MODULES = ("docs", "answer", "code", "dom", "form", "reference")

_PAGES = {
    "docs": ("docs.html", "text/html; charset=utf-8"),
    **{f"docs/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _MODULES},
    "docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "docs/favicon.svg": ("favicon.svg", "image/svg+xml"),
}


def page(path: str) -> tuple[bytes, str] | None:
    """Content and content type of `path` (`docs`, `docs/docs.js`: no slash in front); None where there is none.

    Paths inside the page are relative, so it works behind any prefix. `docs/`, with a slash behind, must redirect to
    `docs`: relative paths would point elsewhere.
    """
    found = _PAGES.get(path)
    if found is None:
        return None
    name, kind = found
    return files(__name__).joinpath(name).read_bytes(), kind
