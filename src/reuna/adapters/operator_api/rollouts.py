"""Rollouts at the operator's API: what they would be, their begin, orders to them, and where they are."""

from __future__ import annotations

from typing import Any, Protocol

from aiohttp import web

from reuna.adapters.operator_api.guard import MAX_WAIT_S, Known, count, few_words, in_thread, read
from reuna.core.rollout import Order, Ordered, RollBack, RolloutSpec
from reuna.trust.people import Caller, Proposal

START = "rollouts.start"


class Rollouts(Protocol):
    """Where releases go, wave after wave. `reuna.cloud.rollouts` implements it."""

    async def plan(self, spec: RolloutSpec) -> dict[str, Any]: ...
    async def start(self, spec: RolloutSpec) -> None: ...
    async def order(self, name: str, order: Order, by: str) -> None: ...
    async def back(self, project: str, name: str, by: str) -> dict[str, str]: ...
    async def status(self, name: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]: ...
    async def listed(self) -> list[dict[str, Any]]: ...
    def timeline(self, name: str, after: int) -> list[dict[str, Any]]: ...


class Has(Protocol):
    """What has rollouts; the coordinator does."""

    @property
    def rollouts(self) -> Rollouts: ...


class Second(Protocol):
    """A second person's word, see `reuna.adapters.operator_api.routes.Reception`; blocking."""

    def needs_two(self, action: str) -> bool: ...
    def propose(self, caller: Caller, action: str, summary: str, content: bytes) -> Proposal: ...


class RolloutDesk:
    """The work behind the routes."""

    def __init__(self, actions: Has, reception: Second) -> None:
        self._actions = actions
        self._reception = reception

    async def plan(self, request: web.Request, _known: Known) -> web.Response:
        spec = read(RolloutSpec, await request.read(), "rollout")
        return web.json_response(await self._actions.rollouts.plan(spec))

    async def start(self, request: web.Request, known: Known) -> web.Response:
        data = await request.read()
        spec = read(RolloutSpec, data, "rollout")
        if not (spec.approval or self._reception.needs_two(START)):
            await self._actions.rollouts.start(spec)
            return web.json_response({})
        await self._actions.rollouts.plan(spec)  # what cannot be needs nobody's word
        proposal = await in_thread(lambda: self._reception.propose(known.caller, START, spec.summary(), data))
        return web.json_response({"proposal": proposal.id}, status=202)

    async def listed(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await self._actions.rollouts.listed())

    async def status(self, request: web.Request, _known: Known) -> web.Response:
        after, seconds = count(request, "after"), min(count(request, "wait"), MAX_WAIT_S)
        name = request.match_info["rollout"]
        return web.json_response(await self._actions.rollouts.status(name, after, seconds))

    async def order(self, request: web.Request, known: Known) -> web.Response:
        order = read(Ordered, await few_words(request), "order").order
        await self._actions.rollouts.order(request.match_info["rollout"], order, known.caller.name)
        return web.json_response({})

    async def timeline(self, request: web.Request, _known: Known) -> web.Response:
        after, name = count(request, "after"), request.match_info["rollout"]
        return web.json_response(await in_thread(lambda: self._actions.rollouts.timeline(name, after)))

    async def back(self, request: web.Request, known: Known) -> web.Response:
        asked = read(RollBack, await few_words(request), "project and name")
        by = known.caller.name
        return web.json_response(await self._actions.rollouts.back(asked.project, asked.rollout, by))
