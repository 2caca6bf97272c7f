"""A client of the debug adapter protocol, as an editor is, which stops a server at a breakpoint."""

from __future__ import annotations

import json
import socket
from typing import Any


class Editor:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.file = self.socket.makefile("rb")
        self.sent = 0

    def send(self, command: str, **arguments: Any) -> int:
        self.sent += 1
        body = json.dumps({"seq": self.sent, "type": "request", "command": command, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self.sent

    def wait(self, **wanted: Any) -> dict[str, Any]:
        while True:
            size = 0
            while line := self.file.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            message: dict[str, Any] = json.loads(self.file.read(size))
            if all(message.get(key) == value for key, value in wanted.items()):
                return message

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        body: dict[str, Any] = self.wait(type="response", request_seq=self.send(command, **arguments)).get("body", {})
        return body


def attached(port: int, source: str, line: int) -> Editor:
    """An editor that is attached to debugpy at `port`, with a breakpoint in a file."""
    editor = Editor(port)
    editor.ask("initialize", adapterID="test")
    request = editor.send("attach", connect={"host": "127.0.0.1", "port": port})
    editor.wait(event="initialized")
    editor.ask("setBreakpoints", source={"path": source}, breakpoints=[{"line": line}])
    editor.ask("configurationDone")
    editor.wait(type="response", request_seq=request)
    return editor


def value_at_the_breakpoint(editor: Editor, source: str, variable: str) -> str:
    """The value of a variable where a thread has stopped; it goes on, without breakpoints, and the editor leaves."""
    thread = editor.wait(event="stopped")["body"]["threadId"]
    frame = editor.ask("stackTrace", threadId=thread)["stackFrames"][0]
    value = str(editor.ask("evaluate", expression=variable, frameId=frame["id"], context="watch")["result"])
    editor.ask("setBreakpoints", source={"path": source}, breakpoints=[])
    editor.ask("continue", threadId=thread)
    editor.close()
    return value
