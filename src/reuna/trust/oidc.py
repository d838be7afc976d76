"""Who an identity provider says somebody is, and what that makes of them at the cloud.

What of OpenID Connect Core 1.0, 3.1.3.7 is left when signature, issuer, audience and times have been
checked; the proof key of RFC 7636. No group that is named in the settings, no role.

>>> roles = {"ml": frozenset({"engineer"})}
>>> rules = Rules("https://id.example", "reuna", "preferred_username", "groups", roles)
>>> claims = {"sub": "17", "nonce": "n", "aud": "reuna", "preferred_username": "Anna", "groups": ["ml"]}
>>> vouched(claims, rules, "n")
Vouched(subject='17', name='anna', roles=frozenset({'engineer'}))
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from reuna.core.errors import AccountProblem, NotSignedIn, SettingsError, UserError
from reuna.core.foreign import shown
from reuna.trust.people import NAME, check_roles

LONGEST_SUBJECT = 255  #: characters (Core 1.0, 2)
PENDING_S = 600.0  #: somebody may take so long at the provider's pages


class Rules(msgspec.Struct, frozen=True):
    """What the cloud's settings say: which provider, which claims count, which group has which roles."""

    issuer: str
    client_id: str
    name_claim: str
    groups_claim: str
    roles: dict[str, frozenset[str]]


class Vouched(msgspec.Struct, frozen=True):
    """Somebody the provider vouches for. ``subject`` stays the same when they change their name."""

    subject: str
    name: str
    roles: frozenset[str]


def read_rules(settings: Mapping[str, Any]) -> Rules:
    """From settings ``oidc.…``. Raises `SettingsError`."""
    roles: dict[str, frozenset[str]] = {}
    for group, given in settings["oidc.roles"].items():
        try:
            if not isinstance(given, list) or not all(isinstance(role, str) for role in given):
                raise AccountProblem("expected a list of roles")
            check_roles(given)
        except UserError as error:
            raise SettingsError(f"oidc.roles of group {group!r:.80}: {error}", error.next_step) from None
        roles[group] = frozenset(given)
    if not roles:
        raise SettingsError(
            "oidc.roles is empty: nobody could sign in",
            'Name groups: `[oidc.roles]`, `ml-team = ["engineer"]`.',
        )
    return Rules(
        settings["oidc.issuer"].rstrip("/"),
        settings["oidc.client_id"],
        settings["oidc.name_claim"],
        settings["oidc.groups_claim"],
        roles,
    )


def challenge(verifier: str) -> str:
    """What is shown of a proof key before it is used; S256 of RFC 7636, 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def vouched(claims: Mapping[str, Any], rules: Rules, nonce: str) -> Vouched:
    """Who that is. ``claims``: of a token whose signature, issuer, audience and times are good.

    Raises `NotSignedIn`, which says what is wrong to whoever signs in.
    """
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise NotSignedIn("this word of the identity provider was for another sign-in", _AGAIN)
    audience, party = claims.get("aud"), claims.get("azp")
    alone = party is None and audience in (rules.client_id, [rules.client_id])
    if not alone and party != rules.client_id:
        raise NotSignedIn("this word of the identity provider was for another program", _AGAIN)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise NotSignedIn("the identity provider does not say who that is", _AGAIN)
    return Vouched(subject, _name(claims, rules), _roles(claims, rules))


def _name(claims: Mapping[str, Any], rules: Rules) -> str:
    given = _claim(claims, rules.name_claim)
    if rules.name_claim == "email" and claims.get("email_verified") is not True:
        raise NotSignedIn("the identity provider has not checked that address", "Have it verified there.")
    name = given.partition("@")[0].lower() if isinstance(given, str) else ""
    if NAME.fullmatch(name) is None:
        raise NotSignedIn(
            f"claim {rules.name_claim} is {shown(given, 80)}, which makes no name for an account",
            "Ask the fleet's admin to set oidc.name_claim.",
        )
    return name


def _roles(claims: Mapping[str, Any], rules: Rules) -> frozenset[str]:
    given = _claim(claims, rules.groups_claim)
    groups = given if isinstance(given, list) else [given]
    roles = frozenset().union(*(rules.roles.get(group, ()) for group in groups if isinstance(group, str)))
    if not roles:
        said = "is not there" if given is None else f"is {shown(given, 120)}: no group that has a role"
        raise NotSignedIn(
            f"claim {rules.groups_claim} {said}", "Ask the fleet's admin: oidc.roles and oidc.groups_claim."
        )
    return frozenset(roles)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by the way to it: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


_AGAIN = "Begin again: `reuna login`."
