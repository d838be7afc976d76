"""Who may bring a policy into force, and that nothing older comes back."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from reuna.core.errors import SettingsError
from reuna.trust.policy import Policy, Signers, Validity, digest
from reuna.trust.policy_sign import (
    REJECTIONS,
    Accepted,
    Floor,
    Rejected,
    Signature,
    parse_signatures,
    sign,
    verify,
    write_signatures,
)
from tests.unit.trust.site import NOW, SIGNERS, key, policy, public

PINNED = Floor("mill-3", SIGNERS)


def signed(found: Policy, *names: str) -> tuple[Signature, ...]:
    return tuple(sign(found, key(name)) for name in names)


def rejected(found: Policy, floor: Floor, *names: str, now: float = NOW) -> str:
    verdict = verify(found, signed(found, *names), floor, now)
    assert isinstance(verdict, Rejected)
    assert verdict.reason in REJECTIONS
    assert verdict.why
    return verdict.reason


def accepted(found: Policy, floor: Floor, *names: str) -> Floor:
    verdict = verify(found, signed(found, *names), floor, NOW)
    assert isinstance(verdict, Accepted)
    return verdict.floor


@pytest.mark.parametrize("names", [("dpo", "ot"), ("it", "dpo"), ("dpo", "ot", "it")])
def test_enough_of_the_pinned_signers_bring_a_policy_into_force(names: tuple[str, ...]) -> None:
    floor = accepted(policy(), PINNED, *names)
    assert (floor.serial, floor.digest, floor.signed_by) == (17, digest(policy()), tuple(sorted(names)))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "too-few"),
        (("dpo",), "too-few"),
        (("dpo", "dpo"), "twice"),
        (("dpo", "mallory"), "unknown-signer"),
        (("dpo", "ot", "mallory"), "unknown-signer"),
    ],
)
def test_too_few_doubled_or_foreign_signatures_are_refused(names: tuple[str, ...], reason: str) -> None:
    assert rejected(policy(), PINNED, *names) == reason


def test_a_policy_that_was_changed_after_it_was_signed_is_refused() -> None:
    old = signed(policy(), "dpo", "ot")
    verdict = verify(policy(kill_switch="/tmp/x"), old, PINNED, NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "signature"


def test_one_bad_signature_beside_enough_good_ones_is_refused() -> None:
    good = signed(policy(), "dpo", "ot")
    for bad in (Signature(public("it"), good[0].signature), Signature(public("it"), "00" * 64)):
        verdict = verify(policy(), (*good, bad), PINNED, NOW)
        assert isinstance(verdict, Rejected)
        assert verdict.reason == "signature"


def test_a_signature_is_of_a_policy_and_of_nothing_else() -> None:
    from reuna.trust.policy import canonical

    bare = [Signature(public(name), key(name).sign(canonical(policy())).hex()) for name in ("dpo", "ot")]
    verdict = verify(policy(), tuple(bare), PINNED, NOW)
    assert isinstance(verdict, Rejected)


def test_a_lower_serial_is_refused() -> None:
    floor = accepted(policy(serial=18), PINNED, "dpo", "ot")
    assert rejected(policy(serial=17), floor, "dpo", "ot") == "serial"


def test_another_policy_of_the_same_serial_is_refused() -> None:
    floor = accepted(policy(), PINNED, "dpo", "ot")
    assert rejected(policy(kill_switch=""), floor, "dpo", "ot") == "conflict"


def test_the_same_policy_is_accepted_again_with_the_same_floor() -> None:
    floor = accepted(policy(), PINNED, "dpo", "ot")
    assert accepted(policy(), floor, "dpo", "ot") == floor


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [(date(2026, 11, 26), date(2027, 1, 1), "early"), (date(2026, 1, 1), date(2026, 11, 24), "expired")],
)
def test_a_policy_outside_of_its_days_is_refused(first: date, last: date, reason: str) -> None:
    found = policy(valid=Validity(first, last))
    assert rejected(found, PINNED, "dpo", "ot") == reason
    held = Floor("mill-3", SIGNERS, 17, digest(found))  # also one that was in force before
    assert rejected(found, held, "dpo", "ot") == reason


def test_the_policy_of_another_site_is_refused() -> None:
    assert rejected(policy(site="mill-4"), PINNED, "dpo", "ot") == "site"


# --- new signers ---------------------------------------------------------------------------------

NEW = Signers(2, {"dpo": public("dpo"), "new": public("new")})


def test_new_signers_come_with_the_signatures_of_old_and_new() -> None:
    floor = accepted(policy(signers=NEW), PINNED, "dpo", "ot", "new")
    assert floor.signers == NEW
    assert accepted(policy(serial=18, signers=NEW), floor, "dpo", "new").serial == 18
    assert rejected(policy(serial=18, signers=NEW), floor, "dpo", "ot") == "unknown-signer"


def test_new_signers_cannot_name_themselves() -> None:
    mine = Signers(1, {"mallory": public("mallory")})
    assert rejected(policy(signers=mine), PINNED, "mallory") == "too-few"
    assert rejected(policy(signers=NEW), PINNED, "dpo", "new") == "too-few"


def test_new_signers_prove_that_they_hold_their_keys() -> None:
    assert rejected(policy(signers=NEW), PINNED, "dpo", "ot") == "too-few"


def test_one_officer_alone_cannot_lower_the_threshold() -> None:
    assert rejected(policy(signers=Signers(1, SIGNERS.keys)), PINNED, "dpo") == "too-few"


def test_after_a_change_of_signers_the_same_file_is_still_accepted() -> None:
    floor = accepted(policy(signers=NEW), PINNED, "dpo", "ot", "new")
    assert accepted(policy(signers=NEW), floor, "dpo", "ot", "new") == floor


@pytest.mark.parametrize("signers", [Signers(1, {}), Signers(0, {})])
def test_a_draft_without_signers_is_never_accepted(signers: Signers) -> None:
    assert rejected(policy(signers=signers), PINNED, "dpo", "ot") == "too-few"
    assert rejected(policy(signers=signers), Floor("mill-3", signers)) == "too-few"


# --- policy.sig ----------------------------------------------------------------------------------


def test_signatures_come_back_from_their_file() -> None:
    found = signed(policy(), "dpo", "ot")
    assert parse_signatures(write_signatures(found), "policy.sig") == found
    assert parse_signatures("", "policy.sig") == ()


@pytest.mark.parametrize(
    "text",
    [
        "[[signature]",
        "other = 1",
        "signature = 1",
        "signature = [1]",
        '[[signature]]\nkey = "aa"\nsignature = "bb"',
        f'[[signature]]\nkey = "{"a" * 64}"',
        f'[[signature]]\nkey = "{"A" * 64}"\nsignature = "{"a" * 128}"',
        f'[[signature]]\nkey = "{"a" * 64}"\nsignature = "{"a" * 128}"\nx = 1',
        f'[[signature]]\nkey = "{"a" * 64}"\nsignature = "{"a" * 192}"',
        "#" * 70_000,
        f'[[signature]]\nkey = "{"a" * 64}"\nsignature = "{"a" * 128}"\n' * 65,
    ],
)
def test_a_file_of_no_signatures_is_one_error(text: str) -> None:
    with pytest.raises(SettingsError, match=r"policy\.sig"):
        parse_signatures(text, "policy.sig")


def test_a_key_that_is_none_is_no_signature() -> None:
    weird = msgspec.structs.replace(SIGNERS, keys={**SIGNERS.keys, "odd": "ff" * 32})
    found = policy(signers=weird)
    bad = Signature("ff" * 32, "00" * 64)
    verdict = verify(found, (*signed(found, "dpo", "ot"), bad), PINNED, NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "signature"
