"""A small OIDC issuer that signs tokens and answers with its public keys."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "https://models.example.com"


class Issuer:
    """Signs with three keys: `rsa`, `ec` and `ed`.

    Attributes:
        fetches: how often its keys were read.
        down: answer 503 only.
    """

    def __init__(self) -> None:
        self.fetches = 0
        self.down = False
        self.changes: dict[str, Any] = {}
        self.private: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = issuer.answer(self.path)
                self.send_response(503 if issuer.down or body is None else 200)
                self.end_headers()
                self.wfile.write(b"" if issuer.down or body is None else body)

            def log_message(self, format: str, *args: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realm"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> bytes | None:
        if path == "/realm/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.changes}).encode()
        if path == "/realm/keys":
            self.fetches += 1
            return json.dumps({"keys": [self.public(name) for name in self.private]}).encode()
        return None

    def public(self, name: str) -> dict[str, Any]:
        """A public key as JSON."""
        algorithm: Any = {"r": jwt.algorithms.RSAAlgorithm, "e": jwt.algorithms.ECAlgorithm}[name[0]]
        if name.startswith("ed"):
            algorithm = jwt.algorithms.OKPAlgorithm
        return {**json.loads(algorithm.to_jwk(self.private[name].public_key())), "kid": name, "use": "sig"}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a token that may predict; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, "roles": ["predict"]}
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def token(self, key: str = "rsa", header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that it signs."""
        algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[key]
        headers = {"kid": key, "typ": "at+jwt", **(header or {})}
        return jwt.encode(self.claims(**changes), self.private[key], algorithm, headers=headers)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token of any header, with any signature."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
