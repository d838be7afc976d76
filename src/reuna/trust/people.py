"""Who may do what at the cloud, and what needs two. No is the default.

Roles add up; there is no role that includes another by itself. What a session or a certificate may
is decided here and nowhere else; so is when an account has to wait after wrong passwords.

>>> anna = Caller("anna", frozenset({"engineer"}), "session")
>>> may(anna, "runs.submit"), may(anna, "proposals.decide"), may(anna, "no-such-action")
(True, False, False)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

import msgspec

from reuna.core.errors import AccountProblem, PermissionDenied

Via = Literal["session", "certificate", "machine"]  #: machine: on the cloud's own machine, on its files

ROLES: dict[str, str] = {
    "viewer": "sees runs, nodes and models",
    "engineer": "hands over code and models, begins runs and checks before them, acknowledges alarms",
    "approver": "says yes or no to what somebody else has proposed",
    "officer": "reads the audit trail, acknowledges alarms",
    "admin": "sees accounts, reads the audit trail",
}
ALL = frozenset(ROLES)
#: What can be done, and which roles may.
ACTIONS: dict[str, frozenset[str]] = {
    "self": ALL,
    "runs.read": ALL,
    "nodes.read": ALL,
    "models.read": ALL,
    "proposals.read": ALL,
    "models.write": frozenset({"engineer"}),
    "runs.submit": frozenset({"engineer"}),
    "runs.check": frozenset({"engineer"}),
    "runs.stop": frozenset({"engineer"}),
    "alarms.acknowledge": frozenset({"engineer", "officer"}),
    "releases.propose": frozenset({"engineer"}),
    "rollouts.read": ALL,
    "rollouts.plan": frozenset({"engineer"}),
    "rollouts.start": frozenset({"engineer"}),
    "rollouts.order": frozenset({"engineer"}),
    "proposals.decide": frozenset({"approver"}),
    "people.read": frozenset({"admin"}),
    "audit.read": frozenset({"officer", "admin"}),
}
#: What the cloud can be told to do only when a second person agrees.
FOUR_EYES = ("runs.submit", "runs.stop", "rollouts.start")
CERTIFICATE_ROLES = frozenset({"engineer", "officer", "admin"})  #: of the operator's certificate

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SHORTEST, LONGEST = 12, 1024  #: characters of a password (NIST SP 800-63B-4, 3.1.1, and a bound on work)
FREE_TRIES = 3  #: wrong passwords in a row before an account waits
LONGEST_WAIT_S = 900.0
IDLE_S, LIFE_S = 3_600.0, 12 * 3_600.0  #: a session ends so long after its last use, and after its begin
PROPOSAL_S = 7 * 86_400.0  #: a proposal waits so long


class Caller(msgspec.Struct, frozen=True):
    """Who asks, with which roles, and how that is known."""

    name: str
    roles: frozenset[str]
    via: Via


class Person(msgspec.Struct, frozen=True):
    """An account. ``password``: Argon2id in the PHC string format; empty: an identity provider knows them."""

    name: str
    roles: frozenset[str]
    password: str = ""
    disabled: bool = False


def listed(people: Iterable[Person]) -> list[dict[str, Any]]:
    """Accounts as others may see them."""
    return [
        {
            "name": each.name,
            "roles": sorted(each.roles),
            "disabled": each.disabled,
            "signs_in": "password" if each.password else "identity provider",
        }
        for each in people
    ]


class Session(msgspec.Struct, frozen=True):
    """Somebody signed in. Times in seconds since the epoch."""

    name: str
    csrf: str
    began: float
    used: float


class Proposal(msgspec.Struct, frozen=True):
    """What somebody wants done and a second person has to allow. ``digest``: SHA-256 of exactly that."""

    id: str
    action: str
    summary: str
    digest: str
    by: str
    at: float
    decided: Literal["", "approved", "rejected"] = ""
    decided_by: str = ""
    decided_at: float = 0.0


def may(caller: Caller, action: str) -> bool:
    """Whether one of the caller's roles may do that."""
    return bool(caller.roles & ACTIONS.get(action, frozenset()))


def check_name(name: str) -> None:
    """Raises `AccountProblem`."""
    if NAME.fullmatch(name) is None:
        raise AccountProblem(
            f"{name!r:.80} is no name for an account", "Use a-z, 0-9, dot, hyphen, underscore."
        )


def check_roles(roles: Collection[str]) -> None:
    """Raises `AccountProblem`."""
    unknown = sorted(set(roles) - ALL)
    if unknown or not roles:
        said = f"{unknown[0]!r:.40} is no role" if unknown else "an account needs a role"
        raise AccountProblem(said, f"Roles are {', '.join(ROLES)}.")


def check_password(password: str, name: str) -> None:
    """Long enough, and not the name. Raises `AccountProblem`."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise AccountProblem(
            f"a password has {SHORTEST} to {LONGEST} characters",
            "Several words in a row are easy to remember.",
        )
    if name in password.lower() and len(password) < len(name) + SHORTEST:
        raise AccountProblem("this password is little more than the name", "Take another one.")


def wait_s(failures: int) -> float:
    """Seconds that an account or address waits after so many wrong passwords in a row."""
    return min(2.0 ** min(failures - FREE_TRIES, 20), LONGEST_WAIT_S) if failures > FREE_TRIES else 0.0


def is_over(session: Session, now: float) -> bool:
    """Whether a session has ended by itself; also when the clock went back before its begin."""
    return not (session.began <= now < session.began + LIFE_S and now < session.used + IDLE_S)


def is_waiting(proposal: Proposal, now: float) -> bool:
    """Whether it can still be decided."""
    return not proposal.decided and proposal.at <= now < proposal.at + PROPOSAL_S


def decide(proposal: Proposal, caller: Caller, approve: bool, digest: str, now: float) -> Proposal:
    """The proposal with a second person's word on exactly this content.

    Raises `PermissionDenied` (no approver, or their own proposal), `AccountProblem` (decided before, too
    old, or about something else).
    """
    if not may(caller, "proposals.decide"):
        raise PermissionDenied(f"{caller.name} is no approver", "Ask somebody who has that role.")
    if caller.name == proposal.by:
        raise PermissionDenied("nobody approves their own proposal", "Ask another approver.")
    if digest != proposal.digest:
        raise AccountProblem(f"proposal {proposal.id} is not what you have seen", "Look at it again.")
    if not is_waiting(proposal, now):
        said = f"was {proposal.decided} by {proposal.decided_by}" if proposal.decided else "is too old"
        raise AccountProblem(f"proposal {proposal.id} {said}", "Propose it again.")
    word: Literal["approved", "rejected"] = "approved" if approve else "rejected"
    return msgspec.structs.replace(proposal, decided=word, decided_by=caller.name, decided_at=now)
