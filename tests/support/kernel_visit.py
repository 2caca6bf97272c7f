"""Run a line of Python in a kernel of a running JupyterLab, in the notebook's environment, and print its output.

Arguments: the address of the server, its token, the line.
"""

from __future__ import annotations

import json
import sys
import uuid

import requests
from websocket import create_connection


def main(url: str, token: str, line: str) -> str:
    header = {"Authorization": f"token {token}"}
    kernel = requests.post(f"{url}/api/kernels", json={"name": "python3"}, headers=header, timeout=60).json()["id"]
    address = f"{url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels"
    channel = create_connection(address, header=header, timeout=60)
    message = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": "", "version": "5.3"}
    header_of = {**message, "msg_type": "execute_request", "date": ""}
    content = {"code": line, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    asked = {"header": header_of, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channel.send(json.dumps(asked))
    printed = ""
    while True:
        answer = json.loads(channel.recv())
        if answer["parent_header"].get("msg_id") != message["msg_id"]:
            continue
        if answer["msg_type"] in ("stream", "error"):
            printed += answer["content"].get("text") or "\n".join(answer["content"]["traceback"])
        # Output comes on another channel than the reply, which may overtake it; nothing comes there after "idle".
        if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
            return printed


print(main(*sys.argv[1:]))
