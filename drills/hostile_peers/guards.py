"""Every guard that the attacks meet, with what stands in its place when it is switched off.

`plant` wraps the guards of one process: each call looks whether the guard is off. `SERVER` holds
those of fog-1's nats-server, which are lines of its configuration.
"""

from __future__ import annotations

import importlib
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from drills.hostile_peers.world import World

Instead = Callable[..., Any]  #: takes the real function and its arguments

#: guard -> (module, dotted name in it, what is called instead)
GUARDS: dict[str, list[tuple[str, str, Instead]]] = {}


def instead(guard: str, module: str, name: str) -> Callable[[Instead], Instead]:
    """The decorated function stands in for ``module.name`` while ``guard`` is off."""

    def keep(function: Instead) -> Instead:
        GUARDS.setdefault(guard, []).append((module, name, function))
        return function

    return keep


def plant(kind: str, control: Path) -> None:
    """Make the guards of this process switchable. ``kind``: egress, fog or cloud; an edge has none."""
    for guard, found in GUARDS.items():
        for where, name, function in found:
            if where in MODULES.get(kind, ()):
                _wrap(guard, where, name, function, control)


def found_at(where: str, name: str) -> tuple[Any, str]:
    """What holds a guard, and the guard's name in it."""
    owner: Any = importlib.import_module(where)
    *classes, last = name.split(".")
    for each in classes:
        owner = getattr(owner, each)
    return owner, last


def _wrap(guard: str, where: str, name: str, function: Instead, control: Path) -> None:
    owner, last = found_at(where, name)
    real = getattr(owner, last)

    def switchable(*args: Any, **kwargs: Any) -> Any:
        if guard in control.read_text().split():
            return function(real, *args, **kwargs)
        return real(*args, **kwargs)

    setattr(owner, last, switchable)


def nothing(real: Any, *args: Any, **kwargs: Any) -> None:
    """A check that checks nothing."""


# --- what comes down: in the egress ----------------------------------------------------------------

PLANS, TRUST, META = "reuna.trust.plans", "reuna.exchange.trust", "reuna.trust.metadata"
EGRESS, FLOWS, CLIENT = "reuna.exchange.egress", "reuna.exchange.flows", "reuna.adapters.https_client"


@instead("plan-signature", PLANS, "_open")
def _unverified(real: Any, gate: Any, signed: bytes) -> Any:
    from reuna.core.errors import Untrusted
    from reuna.trust import plans

    key = next(iter(gate.keys))
    try:
        inner = plans._decode(plans._Body, plans._decode(plans._Signed, signed[1:]).body)
    except Untrusted:
        inner = plans._Body(gate.fleet, key, gate.signed_time, signed)
    return inner, key


@instead("plan-fleet", PLANS, "_open")
def _of_any_fleet(real: Any, gate: Any, signed: bytes) -> Any:
    body, key = real(gate, signed)
    return msgspec.structs.replace(body, fleet=gate.fleet), key


@instead("plan-floor", PLANS, "_raise_floor")
def _unmoved(real: Any, floor: Any, run: str, new: Any) -> Any:
    return floor


instead("plan-history", PLANS, "_check_history")(nothing)


@instead("cohort", FLOWS, "decide")
def _any_cohort(real: Any, policy: Any, state: Any, request: Any) -> Any:
    return real(policy, state, msgspec.structs.replace(request, cohort=99, organisations=99))


@instead("cohort-names", EGRESS, "made_for")
def _counts_doubles(real: Any, plan: Any, *args: Any) -> Any:
    from reuna.trust.requests import Hidden

    return msgspec.structs.replace(real(plan, *args), cohort=Hidden(len(plan.cohort), 9))


@instead("roster", TRUST, "among")
def _believes_names(real: Any, state: Any, names: Any) -> Any:
    from reuna.trust.requests import Hidden

    different = len(set(names))
    return Hidden(different, different)


@instead("code-role", TRUST, "unsigned")
def _vouches_for_all(real: Any, *args: Any) -> str:
    return ""


@instead("metadata-floor", TRUST, "refresh")
def _forgets(real: Any, state: Any, now: float) -> Any:
    return real(msgspec.structs.replace(state, files={}, floors={}), now)


@instead("metadata-hash", META, "_matches")
def _any_file(real: Any, *args: Any) -> bool:
    return True


@instead("metadata-hash", META, "_as_named")
def _any_version(real: Any, state: Any, role: str, metadata: Any, data: bytes, now: float) -> Any:
    from reuna.trust.parse import file_of

    return file_of(metadata, data)


@instead("metadata-length", CLIENT, "HttpsFreight._metadata")
def _of_any_size(real: Any, freight: Any, job: Any, name: str, limit: int) -> Any:
    return real(freight, job, name, 1 << 26)


instead("metadata-signature", META, "verify")(nothing)

# --- what comes up: in fog and cloud ---------------------------------------------------------------

INTAKE, TRAIN, HTTPS = "reuna.exchange.intake", "reuna.loop.train", "reuna.adapters.https_server"
BODY, JUDGED = "reuna.adapters.https_body", "reuna.exchange.bodies"
SPOOL, STORE = "reuna.adapters.spool", "reuna.adapters.trust_store"


@instead("sender", INTAKE, "Intake.receive")
def _whoever_it_says(real: Any, intake: Any, peer: str, manifest: Any) -> Any:
    return real(intake, manifest.sender, manifest)


@instead("plan-digest", TRAIN, "admit")
def _of_any_plan(real: Any, plan: Any, digest: str, manifest: Any, *args: Any) -> None:
    real(plan, manifest.plan, manifest, *args)


@instead("closed", TRAIN, "admit")
def _always_open(real: Any, plan: Any, digest: str, manifest: Any, peer: str, children: Any, _: bool) -> None:
    real(plan, digest, manifest, peer, children, False)


instead("closed", INTAKE, "Intake._still_open")(nothing)
instead("shape", TRAIN, "_check_shape")(nothing)
instead("members", TRAIN, "_check_members")(nothing)
instead("weight", TRAIN, "_check_member")(nothing)
instead("range", JUDGED, "Check.end")(nothing)
instead("length", BODY, "Source.expect")(nothing)
instead("silence", HTTPS, "DepotServer._drop_silent")(nothing)
instead("pace", BODY, "Source._judge_pace")(nothing)
instead("crowd", HTTPS, "DepotServer._drop_crowds")(nothing)


@instead("metrics", TRAIN, "good_metrics")
def _any_metrics(real: Any, metrics: Any) -> bool:
    return True


@instead("one-answer", INTAKE, "Intake._accepted_before")
def _none_before(real: Any, *args: Any) -> None:
    return None


@instead("one-answer", SPOOL, "DiskSpool._known")
def _forgets_row(real: Any, spool: Any, manifest: Any) -> bool:
    where = "run = ? AND round = ? AND attempt = ? AND sender = ?"
    spool._writing.execute(f"DELETE FROM rows WHERE {where}", manifest.key)
    return False


@instead("manifest-limit", HTTPS, "read_manifest")
async def _of_any_length(real: Any, source: Any) -> Any:
    from reuna.adapters import https_body
    from reuna.core.errors import BadMessage, Refused

    length = int.from_bytes(await source.read(4), "little")
    try:
        return https_body.decode(https_body.Contribution, await source.read(length))
    except BadMessage as error:
        raise Refused("malformed", error.message) from error


@instead("types", BODY, "decode")
def _lenient(real: Any, kind: Any, data: bytes) -> Any:
    return msgspec.convert(msgspec.msgpack.decode(data[2:]), kind, strict=False)


@instead("protocol", BODY, "decode")
def _of_any_protocol(real: Any, kind: Any, data: bytes) -> Any:
    from reuna.wire import VERSION

    return real(kind, bytes((VERSION,)) + data[1:])


@instead("offered", INTAKE, "Intake._offered")
def _all_is_offered(real: Any, *args: Any) -> int:
    return 0


@instead("names", HTTPS, "DepotServer._route")
async def _takes_any_path(real: Any, server: Any, request: Any) -> Any:
    from aiohttp import web

    _, found, name = request.path.partition("/v1/trust/")
    if not found:
        return await real(server, request)
    data = server._depot.metadata(name)
    return web.Response(status=404) if data is None else web.Response(body=data)


@instead("names", STORE, "TrustStore.file")
def _any_file_there_is(real: Any, store: Any, name: str) -> bytes | None:
    path: Path = store._folder / "files" / name
    return path.read_bytes() if path.is_file() else None


# --- words -----------------------------------------------------------------------------------------

FOG, CLOUD = "reuna.fog.gateway", "reuna.cloud.coordinator"
EVENTS, API = "reuna.adapters.events", "reuna.adapters.operator_api.guard"
ADMISSION = "reuna.exchange.admission"


@instead("event-name", FOG, "_pass_event")
async def _passes_any(real: Any, egress: Any, may_tell: Any, subject: str, data: bytes) -> None:
    from reuna.core.records import Event
    from reuna.wire import decode

    await egress.emit(decode(Event, data))


@instead("may-tell", CLOUD, "Coordinator.may_tell")
def _tells_anything(real: Any, *args: Any) -> bool:
    return True


@instead("own-hello", ADMISSION, "Admission.hear")
def _hears_all(real: Any, *args: Any) -> bool:
    return True


@instead("own-hello", CLOUD, "Coordinator.is_of")
def _of_any_site(real: Any, *args: Any) -> bool:
    return True


@instead("admission", ADMISSION, "Admission.admit")
def _by_name_alone(real: Any, admission: Any, peercert: Any) -> Any:
    from reuna.adapters.tls import identity_of

    return identity_of(peercert)


@instead("event-once", EVENTS, "EventLog.record")
def _each_time(real: Any, log: Any, event: Any, *args: Any, **more: Any) -> bool:
    return bool(real(log, msgspec.structs.replace(event, boot=secrets.token_hex(4)), *args, **more))


@instead("operators", API, "identity_of")
def _an_operator(real: Any, certificate: Any) -> Any:
    return msgspec.structs.replace(real(certificate), role="operator")


MODULES = {
    "egress": (PLANS, TRUST, META, EGRESS, FLOWS, CLIENT),
    "fog": (INTAKE, TRAIN, HTTPS, BODY, JUDGED, SPOOL, STORE, FOG),
    "cloud": (INTAKE, TRAIN, HTTPS, BODY, JUDGED, SPOOL, CLOUD, EVENTS, API, ADMISSION),
}

# --- fog-1's nats-server ---------------------------------------------------------------------------


def _all_subjects(text: str, world: World) -> str:
    return re.sub(r"(/edge/edge-2\".*?), permissions: .* }( })?", r"\1 }", text)


def _old_tls(text: str, world: World) -> str:
    return text.replace('min_version: "1.3"', 'min_version: "1.2"')


def _any_authority(text: str, world: World) -> str:
    both = world.folder / "both.crt"
    ours = Path(world.fleet.setting("tls.authority", "fog-1"))
    both.write_bytes(ours.read_bytes() + (world.strangers / "authority.crt").read_bytes())
    return text.replace(str(ours), str(both))


SERVER: dict[str, Callable[[str, World], str]] = {
    "subjects": _all_subjects,
    "tls-version": _old_tls,
    "authority": _any_authority,
}
