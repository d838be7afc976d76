"""A signed plan is accepted once, forward only, by the fleet it was made for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import DISTRUST, Untrusted
from reuna.trust import plans
from reuna.trust.gate import plan_gate
from reuna.trust.plans import MAX_AGE_S, MAX_RUNS, About, Floor, PlanGate, PlanSigner, sign_plan, verify_plan
from reuna.trust.publish import DAY, key_of, public_of
from tests.unit.trust.house import FLEET, NOW, House, key

PLANS = key("plans-1")
SIGNER = PlanSigner(FLEET, key_of(public_of(PLANS)).keyid, PLANS)
GATE = PlanGate(FLEET, {SIGNER.key: public_of(PLANS)}, int(NOW + DAY), int(NOW))


def plan(round: int = 1, attempt: int = 1, run: str = "r-1", more: str = "", shares: str = "//") -> bytes:
    return f"{run}/{round}/{attempt}/{more}/{shares}".encode()


def about(data: bytes) -> About:
    run, number, attempt, _, shared, before, _ = data.decode().split("/")
    return About(run, int(number), int(attempt), shared, before)


def accept(signed: bytes, floor: Floor = Floor(), now: float = NOW, gate: PlanGate = GATE) -> plans.Accepted:
    return verify_plan(gate, floor, signed, now, about)


def refused(reason: str) -> Any:
    assert reason in DISTRUST
    return pytest.raises(Untrusted, check=lambda error: error.reason == reason)


def test_the_gate_comes_from_the_metadata() -> None:
    house = House()
    gate = plan_gate(house.update())
    assert gate == GATE
    with refused("missing"):
        plan_gate(house.begin())


def test_a_signed_plan_comes_out_as_it_went_in() -> None:
    accepted = accept(sign_plan(plan(), SIGNER, NOW))
    assert accepted.plan == plans.opened(sign_plan(plan(), SIGNER, NOW)) == plan()
    assert accepted.floor.runs["r-1"].round == 1


def test_the_same_plan_may_come_again_also_signed_again() -> None:
    floor = accept(sign_plan(plan(), SIGNER, NOW)).floor
    assert accept(sign_plan(plan(), SIGNER, NOW), floor).floor == floor
    assert accept(sign_plan(plan(), SIGNER, NOW + 60), floor).floor == floor


@pytest.mark.parametrize("older", [plan(2, 9), plan(3, 1)])
def test_an_older_round_or_attempt_is_refused(older: bytes) -> None:
    floor = accept(sign_plan(plan(3, 2), SIGNER, NOW)).floor
    signed = sign_plan(older, SIGNER, NOW)
    with refused("replayed"):
        accept(signed, floor)
    assert accept(signed)  # without the floor it would be taken


def test_a_second_plan_for_the_same_round_is_refused() -> None:
    floor = accept(sign_plan(plan(), SIGNER, NOW)).floor
    with refused("conflict"):
        accept(sign_plan(plan(more="other"), SIGNER, NOW), floor)


def test_a_round_that_goes_on_from_another_round_than_this_node_was_given_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floor = accept(sign_plan(plan(1, shares="one//"), SIGNER, NOW)).floor
    honest, evil = (sign_plan(plan(2, shares=f"two/{past}/"), SIGNER, NOW) for past in ("one", "other"))
    assert accept(honest, floor).follows
    with refused("conflict"):
        accept(evil, floor)
    monkeypatch.setattr(plans, "_check_history", lambda *_: True)
    assert accept(evil, floor), "nothing else is in its way"


def test_another_attempt_at_a_round_asks_for_the_same_work() -> None:
    floor = accept(sign_plan(plan(1, 1, shares="one//"), SIGNER, NOW)).floor
    assert accept(sign_plan(plan(1, 2, shares="one//"), SIGNER, NOW), floor).follows
    with refused("conflict"):
        accept(sign_plan(plan(1, 2, shares="other//"), SIGNER, NOW), floor)


def test_a_node_that_was_away_goes_on_and_says_that_it_cannot_tell() -> None:
    floor = accept(sign_plan(plan(1, shares="one//"), SIGNER, NOW)).floor
    assert not accept(sign_plan(plan(3, shares="three/two/"), SIGNER, NOW), floor).follows
    assert not accept(sign_plan(plan(3, shares="three/two/"), SIGNER, NOW)).follows


def test_a_plan_of_another_fleet_with_the_same_key_is_refused() -> None:
    with refused("fleet"):
        accept(sign_plan(plan(), msgspec.structs.replace(SIGNER, fleet="line-5"), NOW))


def test_a_plan_signed_by_any_other_key_is_refused() -> None:
    for name in ("online-1", "code-1", "release-1", "root-1"):
        other = key(name)
        with refused("signature"):
            accept(sign_plan(plan(), msgspec.structs.replace(SIGNER, private=other), NOW))
        honest_name = PlanSigner(FLEET, key_of(public_of(other)).keyid, other)
        with refused("signature"):
            accept(sign_plan(plan(), honest_name, NOW))


def test_a_key_that_calls_itself_another_is_refused() -> None:
    with refused("signature"):
        accept(sign_plan(plan(), msgspec.structs.replace(SIGNER, key="0" * 64), NOW))


def test_a_plan_under_a_key_past_its_time_is_refused() -> None:
    signed = sign_plan(plan(), SIGNER, NOW)
    assert accept(signed, now=NOW + DAY - 1)
    with refused("expired"):
        accept(signed, now=NOW + DAY)
    late = msgspec.structs.replace(GATE, signed_time=int(NOW + DAY))
    with refused("expired"):
        accept(signed, gate=late)  # the clock was set back, the signed time was not


def test_a_plan_held_back_for_long_is_refused() -> None:
    gate = msgspec.structs.replace(GATE, until=int(NOW + 30 * DAY))
    signed = sign_plan(plan(), SIGNER, NOW)
    assert accept(signed, now=NOW + MAX_AGE_S, gate=gate)
    with refused("expired"):
        accept(signed, now=NOW + MAX_AGE_S + 1, gate=gate)


def test_a_plan_made_after_its_keys_end_is_refused() -> None:
    with refused("expired"):
        accept(sign_plan(plan(), SIGNER, NOW + 2 * DAY))


def test_a_run_forgotten_for_newer_ones_does_not_come_back() -> None:
    floor = Floor()
    first = sign_plan(plan(run="r-first"), SIGNER, NOW)
    floor = accept(first, floor).floor
    for number in range(MAX_RUNS):
        floor = accept(sign_plan(plan(run=f"r-{number}"), SIGNER, NOW + 1 + number), floor).floor
    assert len(floor.runs) == MAX_RUNS
    assert "r-first" not in floor.runs
    with refused("replayed"):
        accept(first, floor)
    assert accept(sign_plan(plan(run="r-new"), SIGNER, NOW + 100), floor)


def test_numbers_driven_up_by_a_stolen_key_end_with_the_key() -> None:
    floor = accept(sign_plan(plan(2**60), SIGNER, NOW)).floor
    new = PlanSigner(FLEET, key_of(public_of(key("plans-2"))).keyid, key("plans-2"))
    gate = msgspec.structs.replace(GATE, keys={new.key: public_of(new.private)})
    with refused("replayed"):
        accept(sign_plan(plan(2), SIGNER, NOW), floor)
    assert accept(sign_plan(plan(2), new, NOW), floor, gate=gate).floor.runs["r-1"].round == 2


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    with refused("oversized"):
        accept(b"\x01" + bytes(plans.MAX_SIGNED))


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02" + sign_plan(plan(), SIGNER, NOW)[1:], b"\x01\xc1", b"{}"]
)
def test_what_is_no_signed_plan_is_malformed(data: bytes) -> None:
    with refused("malformed"):
        accept(data)


def test_nothing_inside_is_read_before_the_signature_is_good() -> None:
    def never(_: bytes) -> About:
        raise AssertionError("decoded a plan that nobody signed")

    signed = sign_plan(plan(), msgspec.structs.replace(SIGNER, private=key("thief")), NOW)
    with refused("signature"):
        verify_plan(GATE, Floor(), signed, NOW, never)


@given(at=st.integers(0, 400), flip=st.integers(1, 255))
def test_no_changed_byte_is_accepted(at: int, flip: int) -> None:
    signed = bytearray(sign_plan(plan(), SIGNER, NOW))
    signed[at % len(signed)] ^= flip
    with pytest.raises(Untrusted):
        accept(bytes(signed))


@given(cut=st.integers(0, 400))
def test_no_cut_plan_is_accepted(cut: int) -> None:
    signed = sign_plan(plan(), SIGNER, NOW)
    with pytest.raises(Untrusted):
        accept(signed[: cut % len(signed)])


@given(rounds=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), max_size=30))
def test_accepted_rounds_of_a_run_never_go_back(rounds: list[tuple[int, int]]) -> None:
    floor, accepted = Floor(), []
    for number, attempt in rounds:
        signed = sign_plan(plan(number, attempt), SIGNER, NOW)
        if accepted and (number, attempt) < accepted[-1]:
            with refused("replayed"):
                accept(signed, floor)
        else:
            floor = accept(signed, floor).floor
            accepted.append((number, attempt))
    assert accepted == sorted(accepted)
    assert set(accepted) == {best for n, best in enumerate(rounds) if best == max(rounds[: n + 1])}


def test_without_checking_the_signature_a_forged_plan_would_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    forged = sign_plan(plan(), msgspec.structs.replace(SIGNER, private=key("thief")), NOW)
    with refused("signature"):
        accept(forged)
    monkeypatch.setattr(plans, "is_signed", lambda *_: True)
    assert accept(forged).plan == plan()
