"""What the edges below one fog share in a process of many: bytes that are the same for each of them.

The fleet's metadata is fetched by the edge that comes first; a signed plan is verified once, and again when other
metadata was accepted meanwhile; a model lies in one cache.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from reuna.adapters.clock import SystemClock
from reuna.adapters.files import FileBlobs
from reuna.adapters.trust_store import TrustStore
from reuna.core.ports import BlobStore, Bus
from reuna.exchange.link import EgressSettings
from reuna.exchange.news import listen
from reuna.exchange.process import FRESH_S
from reuna.exchange.trust import CodeRole, TrustGuard
from reuna.wire import unpacked

RECENT = 4  #: plans that are not verified again


class Site:
    """Of the edges of one fog."""

    def __init__(self, guard: TrustGuard, models: FileBlobs) -> None:
        self.guard = guard
        self.models = models
        self._verified: dict[bytes, bytes] = {}  #: signed bytes -> the plan inside
        self._by = guard.state  #: the metadata that they were verified by
        self._keeping: asyncio.Task[None] | None = None
        self._role: CodeRole | None = None

    @classmethod
    def begin(cls, settings: EgressSettings) -> Site:
        """In the folder of an edge, with the fleet's root that was brought to it."""
        folder, pin = Path(settings.folder), Path(settings.root).read_bytes()
        guard = TrustGuard.open(TrustStore(folder / "trust"), settings.fleet, pin, SystemClock())
        return cls(guard, FileBlobs(folder / "blobs"))

    async def ready(self, store: BlobStore, bus: Bus, name: str) -> None:
        """Return when the fleet's metadata was accepted; ``store`` and ``bus`` of the first edge bring it."""
        if self._keeping is None:
            self._role = CodeRole(self.guard, store.metadata)
            self._keeping = asyncio.create_task(self.guard.keep_fresh(store.metadata, FRESH_S))
            await listen(bus, name, self.guard)
        await self.guard.ready()

    async def unsigned(self, bundle: str) -> str:
        """See `reuna.exchange.trust.CodeRole.unsigned`."""
        assert self._role is not None
        return await self._role.unsigned(bundle)

    def plan(self, came: bytes) -> bytes:
        """The plan inside, verified by this process. Raises `Untrusted`, `BadMessage`, `DiskFull`."""
        if self.guard.state is not self._by:
            self._by = self.guard.state
            self._verified.clear()
        plan = self._verified.get(came)
        if plan is None:
            plan = self._verified[came] = self.guard.plan(unpacked(came))
            if len(self._verified) > RECENT:
                del self._verified[next(iter(self._verified))]
        return plan

    async def close(self) -> None:
        """Look for nothing newer any more."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)


class Sites:
    """By fog."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}

    def of(self, settings: EgressSettings) -> Site:
        """That of an edge; the first edge of a fog brings its folder and the fleet's root."""
        if settings.parent not in self._sites:
            self._sites[settings.parent] = Site.begin(settings)
        return self._sites[settings.parent]

    async def close(self) -> None:
        """Close each."""
        for site in self._sites.values():
            await site.close()
