"""How a fog has the site of a fog under it certified: it asks its parent, which asks further up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reuna.core.errors import NotAdmitted
from reuna.core.ports import Offload


class SitesAbove:
    """Implements `reuna.exchange.link.Sites` over the parent's enrolment server at ``address``."""

    def __init__(self, address: str, root: Path, own: Path, offload: Offload) -> None:
        self._address = address
        self._root = root
        self._own = own
        self._offload = offload

    async def certify(self, name: str, under: str, request: bytes) -> Sequence[bytes]:
        """See `reuna.exchange.link.Sites.certify`."""
        if not self._address:
            raise NotAdmitted("role", "this fog has no enrol.parent to ask for a site under it")
        from reuna.adapters.enrol_client import EstSource  # the rest of the egress needs no X.509

        source = EstSource(self._address, self._root, self._own)
        return await self._offload(lambda: source.certify_below(name, under, request))
