"""Suggest the known name that a misspelled one was probably meant to be ("did you mean"); shorten names in messages."""

from __future__ import annotations

from collections.abc import Iterable

MAX_NAME_CHARACTERS = 64
"""Longer names get no suggestion: the comparison takes quadratic time, and some of the names come from clients."""

MAX_SHOWN_CHARACTERS = 1000
"""Longer texts are shortened in messages: a caller's name may be as long as the body of a request."""

_MIN_SIMILARITY = 0.6
"""The highest cut-off at which a swap of two letters in a name of three is still recognized."""


def shortened(text: str, most: int = MAX_SHOWN_CHARACTERS) -> str:
    """The text itself, or where it is longer than `most` its beginning and its end."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name most similar to `name`, or an empty string if none is similar or `name` is too long."""
    from difflib import get_close_matches  # only needed after a mistake, so no command pays for its import

    if len(name) > MAX_NAME_CHARACTERS:
        return ""
    return next(iter(get_close_matches(name, known, 1, _MIN_SIMILARITY)), "")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """End a sentence about an unknown name with `; did you mean 'port'?`, or with `otherwise` if no name is similar."""
    suggestion = nearest(name, known)
    return f"; did you mean {suggestion!r}?" if suggestion else otherwise
