"""Files for a source of kind `opcua`: this client's certificate and key, and a server's certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.opcua.certificates import fingerprint, new_identity
from reuna.core.errors import ExtraMissing, KeyProblem, SettingsError, Unreachable
from reuna.core.opcua_settings import url_wrong


def make_client(folder: Path, name: str, days: int) -> dict[str, Any]:
    """Write ``client.der`` and ``client.key``, which only their owner may read; what to do with them.

    Raises `KeyProblem` when one is there already, `NotUsable`.
    """
    certificate, key = folder / "client.der", folder / "client.key"
    for each in (certificate, key):
        if each.exists():
            raise KeyProblem(f"{each} is there already", "Take another folder, or move it away first.")
    made = new_identity(name, days, datetime.now(UTC))
    _write(key, made.key_pem, 0o600)
    _write(certificate, made.der, 0o644)
    return {
        "files": [str(certificate), str(key)],
        "uri": made.uri,
        "fingerprint": fingerprint(made.certificate),
        "next": f"Let the server trust {certificate}; name both files in the source's settings.",
    }


async def fetch_server(folder: Path, url: str) -> dict[str, Any]:
    """Write what a server shows to ``server.der``; it is worth nothing until a person has compared it.

    Raises `ExtraMissing`, `SettingsError`, `Unreachable`, `KeyProblem` when another is there already.
    """
    if wrong := url_wrong(url):
        raise SettingsError(f"--server {wrong}")
    try:
        from reuna.adapters.opcua.connection import Lost, server_certificates
    except ModuleNotFoundError:
        raise ExtraMissing(
            "OPC UA needs asyncua, which is not installed", "Run `pip install 'reuna[opcua]'`."
        ) from None
    try:
        found = await server_certificates(url)
    except Lost as lost:
        raise Unreachable(str(lost), "Check the address, and that the server runs.") from lost
    except Unreachable as error:
        raise Unreachable(error.message, "Copy its certificate from the server itself.") from error
    if not found:
        raise Unreachable(f"{url} shows no certificate: it has no security", "Enable a policy at the server.")
    data, path = found[0].public_bytes(Encoding.DER), folder / "server.der"
    if path.exists() and path.read_bytes() != data:
        raise KeyProblem(f"{path} is there already, and another one", "Move it away first, if that is right.")
    _write(path, data, 0o644)
    return {
        "files": [str(path)],
        "fingerprint": fingerprint(found[0]),
        "next": "Compare the fingerprint with the one that the server itself shows, then name the file as "
        "`server_certificate`.",
    }


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, mode)
    except OSError as error:
        raise storage_error(error, path) from error
