"""Read a certificate and its private key, and make the TLS context of a server from them."""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained

MAX_PEM_BYTES = 40_000
"""Largest certificate chain with its key: it has to fit into one message to a worker."""

TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection (RFC 8446, section 5.1)."""

_UTC_TIME = 0x17
_VERSION = 0xA0


def read_pair(certificate: Path, key: Path) -> bytes:
    """The certificate chain and its private key, as one PEM file that is proven to work.

    Raises:
        EstibaError: a file cannot be read, is no PEM, or the key does not belong to the certificate.
    """
    contents = []
    for file in dict.fromkeys((certificate, key)):
        with explained("read", file):
            contents.append(file.read_bytes().strip())
    if b"ENCRYPTED" in contents[-1]:
        hint = "Write it without: openssl pkey -in KEY -out NEW, and protect the file by its mode."
        raise EstibaError(f"The private key {key} is protected by a passphrase.", hint=hint)
    pem = b"\n".join(contents) + b"\n"
    if len(pem) > MAX_PEM_BYTES:
        raise EstibaError(f"{certificate} and {key} are larger than {MAX_PEM_BYTES} bytes together.")
    try:
        context(pem)
        expiry(pem)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise EstibaError(
                f"The private key {key} does not belong to the certificate {certificate}.",
                hint="Give the key that the certificate was requested with; the server's own certificate comes first.",
            ) from None
        raise EstibaError(f"{certificate} and {key} are no certificate and private key in PEM format.") from None
    except (ValueError, IndexError):
        raise EstibaError(f"{certificate} is no certificate in PEM format.") from None
    return pem


def context(pem: bytes) -> ssl.SSLContext:
    """The context of a server: TLS 1.2 and newer, HTTP/1.1; raises ssl.SSLError. The key is not written to a disk."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.set_alpn_protocols(["http/1.1"])
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate")
        try:
            os.write(descriptor, pem)
            server.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
        finally:
            os.close(descriptor)
        return server
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        server.load_cert_chain(file.name, password="")
    return server


def others_may_read(key: Path) -> bool:
    """Return True if the file is readable for every user of this machine."""
    return bool(key.stat().st_mode & stat.S_IROTH)


def expiry(pem: bytes) -> float:
    """The time at which the first certificate expires, in seconds since 1970; raises ValueError or IndexError.

    Source: RFC 5280, section 4.1. The standard library reads this field only of a peer's certificate.
    """
    text = pem.decode("latin-1")
    start, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    der = ssl.PEM_cert_to_DER_cert(text[start:end])
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    if der[at] == _VERSION:
        at = _element(der, at)[2]
    for _ in range(3):  # serial number, algorithm, issuer
        at = _element(der, at)[2]
    _, at, _ = _element(der, at)  # Validity
    at = _element(der, at)[2]  # notBefore
    kind, begin, end_at = _element(der, at)
    value = der[begin:end_at].decode("ascii")
    if kind == _UTC_TIME:
        value = ("19" if value >= "50" else "20") + value
    return datetime.strptime(value, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, beginning of the content, and end of the DER element at an offset."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return der[at], begin, begin + size
