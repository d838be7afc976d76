"""What a provider's word makes of somebody: laws of the pure part."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import NotSignedIn
from reuna.trust.oidc import Rules, Vouched, challenge, vouched
from reuna.trust.people import ROLES

GROUPS = ("ml", "it", "night shift")
RULES = Rules("https://id.example", "reuna", "preferred_username", "groups", {
    "ml": frozenset({"engineer"}), "it": frozenset({"admin", "officer"}), "night shift": frozenset({"viewer"}),
})  # fmt: skip
GOOD = {
    "sub": "17",
    "nonce": "n",
    "aud": "reuna",
    "preferred_username": "anna@mill.example",
    "groups": ["ml"],
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(GROUPS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def tried(claims: dict[str, Any]) -> tuple[Vouched | None, NotSignedIn | None]:
    try:
        return vouched(claims, RULES, "n"), None
    except NotSignedIn as error:
        return None, error


@given(st.sets(st.sampled_from((*GROUPS, "canteen"))), st.sets(st.sampled_from((*GROUPS, "canteen"))))
def test_fewer_groups_never_have_more_roles(some: set[str], more: set[str]) -> None:
    few, many = (tried({**GOOD, "groups": sorted(each)})[0] for each in (some, some | more))
    assert few is None or (many is not None and few.roles <= many.roles)


@given(
    st.dictionaries(st.sampled_from(("sub", "nonce", "aud", "azp", "preferred_username", "groups")), ANYTHING)
)
def test_whatever_a_provider_says_makes_somebody_or_one_clear_message(wrong: dict[str, Any]) -> None:
    claims = {**GOOD, **wrong}
    found, refused = tried(claims)
    if found is None:
        assert refused is not None
        assert refused.next_step
        assert len(refused.message) < 400
        return
    said = claims["groups"] if isinstance(claims["groups"], list) else [claims["groups"]]
    assert found.roles == frozenset().union(
        *(RULES.roles[each] for each in said if isinstance(each, str) and each in RULES.roles)
    )
    assert found.roles <= set(ROLES)
    assert claims["nonce"] == "n"


def test_names_are_those_of_accounts() -> None:
    assert vouched(GOOD, RULES, "n").name == "anna"
    nested = Rules("i", "reuna", "email", "realm_access.roles", RULES.roles)
    claims = {**GOOD, "email": "Ben@Mill.example", "realm_access": {"roles": ["it"]}}
    with pytest.raises(NotSignedIn, match="not checked"):
        vouched(claims, nested, "n")
    found = vouched({**claims, "email_verified": True}, nested, "n")
    assert (found.name, found.roles) == ("ben", {"admin", "officer"})


def test_the_proof_key_is_that_of_the_standard() -> None:
    """RFC 7636, appendix B."""
    assert (
        challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
        == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


@given(st.text(alphabet="abcXYZ019-._~", min_size=43, max_size=128))
def test_a_proof_key_shows_nothing_of_itself(verifier: str) -> None:
    shown = challenge(verifier)
    assert base64.urlsafe_b64decode(shown + "=") == hashlib.sha256(verifier.encode()).digest()
    assert "=" not in shown
