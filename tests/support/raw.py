"""Send raw bytes over a real socket and parse the HTTP answers."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reader:
    """Read answers from a socket one by one; bytes that are not a valid answer raise ValueError."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.rest += data
        return bool(data)

    def answer(self, *, bodiless: bool = False) -> Answer | None:
        """The next answer; None if the server closed the connection instead."""
        while b"\r\n\r\n" not in self.rest:
            if not self._more():
                if self.rest:
                    raise ValueError(f"the server closed in the middle of {self.rest!r}")
                return None
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        if version != "HTTP/1.1" or len(status) != 3:
            raise ValueError(f"this is no status line: {first!r}")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if bodiless or status == "100" else int(headers["content-length"])
        while len(self.rest) < length:
            if not self._more():
                raise ValueError("the server closed in the middle of a body")
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(int(status), headers, body)

    def all(self) -> list[Answer]:
        """Every answer until the server closes."""
        answers = []
        while (answer := self.answer()) is not None:
            answers.append(answer)
        return answers


def post(body: bytes = b'{"x": 1.0}', path: str = "/models/price/predict", extra: bytes = b"") -> bytes:
    """A valid request, with `extra` header lines (each ended by CRLF)."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + extra + b"\r\n" + body


def price(answer: Answer | None) -> float:
    assert answer is not None
    assert answer.status == 200, answer
    value: float = answer.json["predictions"][0]["value"]
    return value
