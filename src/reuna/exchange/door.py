"""A parent's door: its register, who is admitted, where machines enrol, its own server certificate.

Fog and cloud use the same class. `open` comes first, for the servers ask `Door.admission`; `keep`
runs when they serve.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from reuna.adapters.certificates import flaw, identity_in
from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.enrol_server import Chain, serve_enrolment
from reuna.adapters.tls import reload_context, server_context
from reuna.exchange import renewal
from reuna.exchange.admission import Admission, OnNames, watch
from reuna.exchange.enrolment import AskAbove, Enrolment
from reuna.exchange.parent import open_authority, open_register, terms_of
from reuna.trust.enrolment import DAY, Invite

log = logging.getLogger("reuna.enrolment")
Files = tuple[Path, Path, Path]  #: certificate, key, root


class Door:
    """``role`` is of the children: ``fog`` at the cloud, ``edge`` at a fog, which may have fogs too.

    ``tell`` gives what an invited machine needs to know to make its settings.
    """

    def __init__(
        self, settings: Mapping[str, Any], role: str, folder: Path, tell: Callable[[Invite], dict[str, Any]]
    ) -> None:
        self.ask_above: AskAbove | None = None  #: set where fogs may stand under this place
        self.over: Callable[[], Mapping[str, str]] = dict  #: set at the cloud: the fog over each under one
        self._settings = settings
        self._tell = tell
        self._role = role
        self.register = open_register(settings)
        self.admission = Admission(
            fleet=settings["fleet"],
            role=role,
            site=settings["name"] if role == "edge" else "",
            register=self.register,
            listed=settings[f"{role}s"],
            clock=SystemClock(),
            above=folder / "revoked.json",
            fogs=settings["fogs"] if role == "edge" else (),
        )

    async def keep(
        self,
        own: Files,
        contexts: list[ssl.SSLContext],
        on_names: OnNames,
        on_files: Callable[[], Awaitable[None]],
        stack: AsyncExitStack,
    ) -> None:
        """Serve enrolment, renew ``own``, follow changes, until ``stack`` closes.

        Renewed files are loaded into ``contexts``; ``on_files`` is called afterwards.
        """
        clock, files = SystemClock(), [own[0]]
        enrolment = self._enrolment()
        if enrolment is not None:
            folder, host = Path(self._settings["enrol.authority"]), self._settings["listen.host"]
            context = server_context(*own, client=False, flaw=flaw)
            contexts = [*contexts, context]
            port = self._settings["enrol.port"]
            server = await serve_enrolment(enrolment, host, port, context, self._in_force)
            stack.push_async_callback(server.stop)
            files.append(folder / "authority.crt")
            life = self._settings["enrol.life_days"] * DAY
            self._start(
                stack,
                renewal.keep(
                    own[0],
                    lambda now: renewal.renew_locally(own[0], folder, life, now),
                    clock,
                    ThreadOffload(),
                ),
            )

        async def taken_over() -> None:
            for context in contexts:
                reload_context(context, *own)
            if enrolment is not None:
                enrolment.use(open_authority(self._settings))
            await on_files()
            log.info("a renewed certificate is shown from now on")

        self._start(stack, watch(self.admission, files, on_names, taken_over, clock, ThreadOffload()))

    async def _in_force(self, chain: Chain) -> None:
        await self.admission.in_force(identity_in(chain[0]).name)

    def _start(self, stack: AsyncExitStack, work: Any) -> None:
        stack.callback(asyncio.create_task(work).cancel)

    def _enrolment(self) -> Enrolment | None:
        if not self._settings["enrol.authority"]:
            return None
        return Enrolment(
            open_authority(self._settings),
            self.register,
            terms_of(self._settings, self._role),
            self._tell,
            lambda: self.admission.listed | self.admission.listed_fogs,
            SystemClock(),
            lambda: self.admission.listed_fogs,
            self.admission.revoked_above,
            self.ask_above,
            self.over,
        )
