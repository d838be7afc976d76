"""The releases that a fog passes on: one transfer over the line above, however many edges ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import Untrusted
from reuna.core.ports import Blob, Blobs, Offload
from reuna.trust.releases import listed, offered
from reuna.wire.release import MAX_RELEASE

log = logging.getLogger("reuna.releases")


class Stock:
    """``known``: what the fog's egress has accepted; ``fetch`` asks that egress; ``blobs`` both share."""

    def __init__(
        self,
        known: TrustStore,
        fetch: Callable[[str, int], Awaitable[Blob]],
        blobs: Blobs,
        offload: Offload,
    ) -> None:
        self._known = known
        self._fetch = fetch
        self._blobs = blobs
        self._offload = offload
        self._one = asyncio.Lock()

    async def get(self, digest: str) -> Blob | None:
        """A release that an edge may still take, None for anything else. Raises as `BlobStore.fetch`."""
        size = await self._offload(lambda: self._size(digest))
        if size is None:
            return None
        async with self._one:  # of many edges the first one waits for the line, the others for it
            if (held := await self._offload(lambda: self._blobs.get(digest))) is not None:
                return held
            fetched = await self._fetch(digest, size)
            self._blobs.know(digest, fetched.hashes)
            return await self._offload(lambda: self._blobs.get(digest))

    def _size(self, digest: str) -> int | None:
        try:
            state = self._known.state()
            found = () if state is None else listed(state)
        except Untrusted as error:
            log.error("the list of releases cannot be read: %s %s", error.code, error)
            return None
        if digest not in offered(found):
            return None
        sizes = (each.size for each in found if each.digest == digest)
        return next((size for size in sizes if size <= MAX_RELEASE), None)
