"""What the cloud signs by itself: plans, and metadata that grows old.

The root, release and code keys are not here; see `reuna.fleet.trust`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from reuna.adapters.trust_keys import read_key
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.errors import KeyProblem, ReunaError
from reuna.core.ports import Clock
from reuna.trust.plans import PlanSigner, sign_plan
from reuna.trust.publish import PrivateKey
from reuna.trust.stages import Stage

log = logging.getLogger("reuna.cloud")
FRESHEN_S = 3600.0  #: between two looks at what grows old, and at keys that were brought

NO_GUARD = (
    "{}; whoever takes this machine can sign roots, releases and code. Make new ones on a machine without"
    " a network, `reuna trust init`, and move these to media of their own: docs/how-to/trust.md"
)


def offline_keys(folder: Path) -> list[str]:
    """Names of the keys in a trust folder that belong on media of their own."""
    return sorted(path.stem for path in (folder / "keys").glob("*.key"))


class Signing:
    """The online keys of a trust folder. Raises `KeyProblem`, `Untrusted` when they cannot sign."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.repository = TufRepository(folder / "public")
        self._online = folder / "online"
        self._clock = clock
        self._signer = self._take_up()
        if found := offline_keys(folder):
            log.warning("%s holds offline keys: %s", folder / "keys", NO_GUARD.format(", ".join(found)))

    def seal(self, plan: bytes) -> bytes:
        """A plan's bytes, signed now."""
        return sign_plan(plan, self._signer, self._clock.now())

    def key(self) -> PrivateKey:
        """The key that plans are signed with today; heads of ledgers are countersigned with it too."""
        return self._signer.private

    def staged(self) -> tuple[Stage, ...]:
        """Which release runs where, as it is published. Raises `KeyProblem`, `Untrusted`."""
        return self.repository.stages()

    def stage(self, stages: Sequence[Stage]) -> None:
        """Publish which release runs where, in place of what was said before. Raises as `freshen`.

        Saying the same again publishes nothing.
        """
        if tuple(stages) != self.repository.stages():
            self.repository.stage(stages, self._keys(), self._clock.now())

    async def keep_fresh(self) -> None:
        """Look every hour; what cannot be signed is said, and tried again."""
        while True:
            await self._clock.sleep(FRESHEN_S)
            try:
                self._signer = self._take_up()
            except ReunaError as error:
                log.error("metadata is not renewed: %s %s", error.code, error)

    def _take_up(self) -> PlanSigner:
        keys = self._keys()
        self.repository.freshen(keys, self._clock.now())
        return self.repository.plan_signer(keys)

    def _keys(self) -> list[PrivateKey]:
        found = sorted(self._online.glob("*.key"))
        if not found:
            raise KeyProblem(f"no online key in {self._online}", "Make them with `reuna trust init`.")
        return [read_key(path, None) for path in found]
