"""`reuna.trust.plans`: signed plans as they come, packed or not, and good signatures over foreign bytes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fuzz.kit import PLAN, attempt
from reuna.core.errors import BadMessage, Untrusted
from reuna.core.records import Plan
from reuna.loop.plan import shared
from reuna.trust import plans
from reuna.trust.dsse import authenticated
from reuna.trust.plans import About, Floor, PlanGate, PlanSigner, opened, sign_plan, verify_plan
from reuna.trust.publish import DAY, key_of, public_of
from reuna.wire import decode, encode, packed, unpacked
from reuna.wire.packing import PACKED
from tests.unit.trust.house import FLEET, NOW, key

PRIVATE = key("plans-1")
SIGNER = PlanSigner(FLEET, key_of(public_of(PRIVATE)).keyid, PRIVATE)
GATE = PlanGate(FLEET, {SIGNER.key: public_of(PRIVATE)}, int(NOW + DAY), int(NOW))


def seeds() -> Iterator[bytes]:
    signed = sign_plan(encode(PLAN), SIGNER, NOW)
    yield b"\0" + signed
    yield b"\1" + msgspec.msgpack.decode(signed[1:])[0]
    yield b"\2" + encode(PLAN)
    yield b"\0" + packed(signed)


def check(data: bytes) -> None:
    signed = data[1:]
    if data[:1] == b"\1":  # any body under a good signature
        signature = PRIVATE.sign(authenticated(plans.PAYLOAD_TYPE, data[1:]))
        signed = bytes((plans.FORMAT,)) + msgspec.msgpack.encode((data[1:], signature))
    elif data[:1] == b"\2":  # any plan
        signed = sign_plan(data[1:], SIGNER, NOW)
    plain = attempt(lambda: unpacked(signed), BadMessage)
    if plain is None:
        return
    assert plain[:1] == bytes((PACKED,)) or unpacked(packed(plain)) == plain
    signed = plain
    attempt(lambda: opened(signed), Untrusted)
    accepted = attempt(lambda: verify_plan(GATE, Floor(), signed, NOW, _about), Untrusted, BadMessage)
    if accepted is not None:
        assert accepted.plan == opened(signed)
        assert verify_plan(GATE, accepted.floor, signed, NOW, _about).floor == accepted.floor


def _about(data: bytes) -> About:
    plan = decode(Plan, data)
    return About(*plan.key, shared=shared(plan), before=plan.before)
