"""Certificates renew themselves at two thirds of their life, in the process that holds the key.

What is renewed is one file: a new key and its chain, swapped at once. Whoever serves with the file
looks at it now and then (`reuna.exchange.admission.watch`) and shows it on new connections; those
that are open stay open, so a round goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reuna.adapters import certificates
from reuna.adapters.certificates import CertificateAuthority
from reuna.core.errors import NotAdmitted, ReunaError
from reuna.core.ports import CertificateSource, Clock, Offload
from reuna.trust.enrolment import renew_at, retry_after

if TYPE_CHECKING:
    from reuna.adapters.enrol_client import EstSource

log = logging.getLogger("reuna.renewal")
LOOK_S = 60.0  #: a machine that slept looks at its clock this often
REVOKED_S = 15.0  #: how often a fog asks which names were revoked


async def keep(file: Path, renew: Callable[[float], object], clock: Clock, offload: Offload) -> None:
    """Call ``renew`` (with the time, blocking) whenever the first certificate of ``file`` is due.

    Runs until cancelled. A renewal that fails is tried again, for good or ill: the other side
    decides, and may change its mind.
    """
    failures, ends = 0, 0.0
    while True:
        try:
            begins, ends = certificates.validity(file.read_bytes())
            if (left := renew_at(begins, ends) - clock.now()) > 0:
                await clock.sleep(min(left, LOOK_S))
                continue
            await offload(partial(renew, clock.now()))
            failures = 0
            await clock.sleep(1.0)  # at most one a second, whatever lives are set
        except (ReunaError, OSError) as error:
            log.warning("%s is not renewed yet: %s", file.name, error)
            await clock.sleep(retry_after(clock.now(), ends, failures))
            failures += 1


def renew_own(file: Path, source: CertificateSource, now: float) -> None:
    """A node's next key and certificate; with the same key once the certificate has ended.

    Raises `NotAdmitted`, `Unreachable`, and then leaves the file as it is.
    """
    pem = file.read_bytes()
    current = certificates.read_chain(pem)[0]
    if now < current.not_valid_after_utc.timestamp():
        key = certificates.new_key()
        found = source.renew(certificates.request(key))
    else:
        key = certificates.read_key(pem)
        found = source.recover(certificates.to_der(current), certificates.request(key))
    chain = certificates.ordered(found, key.public_key())
    if certificates.identity_in(chain[0]) != certificates.identity_in(current):
        raise NotAdmitted("certificate", "the authority sent a certificate for another node")
    certificates.write_private(file, certificates.key_pem(key) + certificates.to_pem(chain))
    log.info("renewed %s until %s", file.name, chain[0].not_valid_after_utc.isoformat(" ", "minutes"))


def renew_site(folder: Path, source: CertificateSource, hosts: tuple[str, ...]) -> None:
    """The next certificate of a site's authority, for the same key: what it signed stays valid."""
    key = certificates.read_key((folder / "authority.key").read_bytes())
    chain = certificates.ordered(source.renew_site(certificates.request(key, hosts)), key.public_key())
    certificates.write_private(folder / "authority.crt", certificates.to_pem(chain), 0o644)
    log.info("renewed the site's authority until %s", chain[0].not_valid_after_utc.isoformat(" ", "minutes"))


def renew_locally(file: Path, folder: Path, life_s: float, now: float) -> None:
    """A server's next key and certificate from the authority beside it (cloud, gateway)."""
    authority = CertificateAuthority.load(folder)
    current = certificates.read_chain(file.read_bytes())[0]
    key = certificates.new_key()
    certificate = authority.certify(
        key.public_key(),
        certificates.identity_in(current),
        certificates.hosts_in(current),
        timedelta(seconds=life_s),
        datetime.fromtimestamp(now, UTC),
    )
    chain = authority.chain(certificate)
    certificates.write_private(file, certificates.key_pem(key) + certificates.to_pem(chain))
    log.info("renewed %s until %s", file.name, certificate.not_valid_after_utc.isoformat(" ", "minutes"))


async def follow_revoked(source: EstSource, file: Path, clock: Clock, offload: Offload) -> None:
    """Keep in ``file`` (JSON) the names that the parent has revoked. Runs until cancelled."""
    while True:
        try:
            names = await offload(source.revoked)
            certificates.write_private(file, json.dumps(sorted(names)).encode())
        except ReunaError as error:
            log.info("the list of revoked names is as it was: %s", error)
        await clock.sleep(REVOKED_S)
