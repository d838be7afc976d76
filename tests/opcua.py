"""Starts `tests.opcua_machine`, tells it what its tags have, and takes its power."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reuna.core.opcua_settings import OpcUaSettings, OpcUaTag, node
from reuna.core.sources import Batch, Column, Gap, chained, check_batch
from reuna.fleet.ports import free_ports

ROOT = Path(__file__).parents[1]
URI = "http://example.com/press"
SERVER = "urn:press:server"


class Machine:
    """One server at one port; `start` again after `kill` is the same machine with its power back."""

    def __init__(self, **said: Any) -> None:
        (self.port,) = free_ports(1)
        self.said = said
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    def start(self, **more: Any) -> Machine:
        self.said.update(more)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.opcua_machine", str(self.port), json.dumps(self.said)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        assert self._answer() == "ready"
        return self

    def _answer(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise AssertionError("the machine ended")

    def set(self, node: str, value: Any, **more: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"node": node, "value": value, **more}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert answer == "GOOD", answer

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def tag(name: str, unit: str = "", **more: Any) -> OpcUaTag:
    return OpcUaTag(name, node(f"nsu={URI};s={name}"), unit, every_s=0.02, queue=100, **more)


def settings(url: str, tags: Iterable[OpcUaTag], **more: Any) -> OpcUaSettings:
    given = {"security": "none", "publish_s": 0.05, "silence_s": 5.0, "unchanged_s": 0.0, **more}
    return OpcUaSettings("press", url, tuple(tags), **given)


class Reader:
    """What a source gave until now."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.stream = source.batches()
        self.given: list[Batch] = []

    async def until(self, there: Callable[[Reader], bool]) -> None:
        async with asyncio.timeout(30):
            while not there(self):
                batch = await anext(self.stream)
                check_batch(batch, self.source.tags)
                self.given.append(batch)

    def column(self, name: str, historical: bool = False) -> Column:
        some = [each for each in self.given if each.historical is historical and name in each.columns]
        return chained([each.columns[name] for each in some])

    def values(self, name: str, historical: bool = False) -> list[float]:
        return self.column(name, historical).values.tolist()

    @property
    def gaps(self) -> list[Gap]:
        return [gap for batch in self.given for gap in batch.gaps]


class Authority:
    """Signs servers' certificates, or lets a server sign its own."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65_537, 2048)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Plant CA")])
        self.certificate = self._signed(
            self.name, self.key, x509.BasicConstraints(True, 0), [], datetime.now(UTC) + timedelta(days=9)
        )

    def server(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        ends: timedelta = timedelta(days=1),
        alone: bool = False,
        began: timedelta = timedelta(days=-2),
    ) -> dict[str, Any]:
        """Certificate and key of a server as files, in the words of `Machine`; ``alone``: signs itself."""
        key = rsa.generate_private_key(65_537, 2048)
        names = [x509.UniformResourceIdentifier(SERVER), _host(host)]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "press")])
        made = self._signed(
            name,
            key,
            x509.BasicConstraints(False, None),
            names,
            datetime.now(UTC) + ends,
            datetime.now(UTC) + began,
            own=alone,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.der").write_bytes(made.public_bytes(serialization.Encoding.DER))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return {"certificate": str(folder / "server.der"), "key": str(folder / "server.key"), "uri": SERVER}

    def revoked(self, certificate: x509.Certificate) -> bytes:
        """A list of revoked certificates with that one, PEM."""
        now = datetime.now(UTC)
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.serial_number)
            .revocation_date(now)
            .build()
        )
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now)
            .next_update(now + timedelta(days=1))
            .add_revoked_certificate(entry)
        )
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _signed(
        self,
        name: x509.Name,
        key: rsa.RSAPrivateKey,
        basic: x509.BasicConstraints,
        names: list[x509.GeneralName],
        ends: datetime,
        begins: datetime | None = None,
        own: bool = False,
    ) -> x509.Certificate:
        signer, issuer = (key, name) if own else (self.key, self.name)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins or datetime.now(UTC) - timedelta(days=2))
            .not_valid_after(ends)
            .add_extension(basic, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
            .add_extension(
                x509.KeyUsage(True, True, True, True, False, basic.ca or own, basic.ca, False, False), True
            )
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
            )
        return made.sign(signer, hashes.SHA256())


def _host(host: str) -> x509.GeneralName:
    import ipaddress

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
