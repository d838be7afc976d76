"""Depots that tests of the HTTPS adapters share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reuna.adapters.certificates import CertificateAuthority
from tests.unit.adapters.depots import PEER, Site, served


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path_factory.mktemp("authority"), "test-fleet")
    made.issue("fog", "fog-1", hosts=["127.0.0.1"])
    made.issue("fog", "elsewhere", hosts=["10.9.8.7"])
    for name in (PEER, "edge-2"):
        made.issue("edge", name)
    return made


@pytest_asyncio.fixture
async def site(authority: CertificateAuthority) -> AsyncIterator[Site]:
    async for made in served(authority, stall_s=0.3):
        yield made


@pytest_asyncio.fixture
async def patient_site(authority: CertificateAuthority) -> AsyncIterator[Site]:
    """A site whose server waits longer than a test may take."""
    async for made in served(authority, stall_s=60):
        yield made
