"""Where people come in: who they are, whether they wait, what needs a second one, and the trail of it."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Collection
from typing import Any

import msgspec

from reuna.adapters.audit import AuditTrail
from reuna.adapters.passwords import matches
from reuna.adapters.people import PeopleStore
from reuna.adapters.register import Register
from reuna.core.errors import AccountProblem, NotSignedIn, PermissionDenied, TooMany
from reuna.core.ports import Clock
from reuna.trust import people
from reuna.trust.oidc import Vouched
from reuna.trust.people import Caller, Person, Proposal, Session

TOKEN = 32  #: random bytes of a session's token
NOTED_S = 60.0  #: the use of a session is written down at most so often
REMEMBERED = 4096  #: accounts and addresses whose wrong passwords are remembered


class Reception:
    """Blocking, and safe to use from several threads."""

    def __init__(
        self,
        store: PeopleStore,
        trail: AuditTrail,
        clock: Clock,
        register: Register,
        four_eyes: Collection[str] = (),
    ) -> None:
        self._store = store
        self._register = register
        self._trail = trail
        self._clock = clock
        self._four_eyes = frozenset(four_eyes)
        self._failures: dict[str, tuple[int, float]] = {}  #: account or address -> how many, when the last
        self._lock = threading.Lock()

    # --- sessions --------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str) -> tuple[str, Session, Caller]:
        """A token, its session, and who that is.

        Raises `NotSignedIn` (which of name and password is wrong is not said), `TooMany`.
        """
        now, keys = self._clock.now(), (f"account {name}", f"address {address}")
        with self._lock:
            left = max(self._left(key, now) for key in keys)
        if left > 0:
            self.note(name, "session", "session.begin", "denied", why="too many tries", address=address)
            raise TooMany(f"too many wrong passwords; wait {left:.0f} s")
        person = self._store.person(name) if people.NAME.fullmatch(name) else None
        kept = None if person is None or person.disabled else person.password or None
        if not matches(password[: people.LONGEST + 1], kept) or person is None:
            with self._lock:
                self._count(keys, now)
            self.note(
                name[:80], "session", "session.begin", "denied", why="name or password", address=address
            )
            raise NotSignedIn("name and password do not belong together")
        with self._lock:
            self._failures.pop(keys[0], None)
        return self._begin(person, "session", address)

    def welcome(self, who: Vouched, issuer: str, address: str) -> tuple[str, Session, Caller]:
        """The same for somebody an identity provider vouches for; their account follows its word.

        Raises `NotSignedIn`: the account is disabled, or the name is somebody else's.
        """
        name = self._store.known_as(issuer, who.subject)
        person = self._store.person(name or who.name)
        refused = ""
        if name is None and person is not None:
            refused = f"there is an account {who.name} that is somebody else's"
        elif person is not None and person.disabled:
            refused = f"the account {person.name} is disabled"
        if refused:
            self.note(who.name, "oidc", "session.begin", "denied", why=refused, address=address)
            raise NotSignedIn(refused, "Ask the fleet's admin.")
        if person is None:
            person = Person(who.name, who.roles)
            self.note(person.name, "oidc", "people.add", "allowed", roles=" ".join(sorted(who.roles)))
            self._store.add(person, (issuer, who.subject))
        elif person.roles != who.roles:
            person = msgspec.structs.replace(person, roles=who.roles)
            self.note(person.name, "oidc", "people.change", "allowed", roles=" ".join(sorted(who.roles)))
            self._store.change(person)
        return self._begin(person, "oidc", address)

    def _begin(self, person: Person, via: str, address: str) -> tuple[str, Session, Caller]:
        now = self._clock.now()
        token = secrets.token_urlsafe(TOKEN)
        session = Session(person.name, secrets.token_urlsafe(TOKEN), now, now)
        self.note(person.name, via, "session.begin", "allowed", address=address)
        self._store.begin(token, session)
        return token, session, Caller(person.name, person.roles, "session")

    def _left(self, key: str, now: float) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        return last + people.wait_s(count) - now

    def _count(self, keys: tuple[str, ...], now: float) -> None:
        for key in keys:
            count, _ = self._failures.pop(key, (0, 0.0))
            self._failures[key] = count + 1, now
        while len(self._failures) > REMEMBERED:
            self._failures.pop(next(iter(self._failures)))

    def caller(self, token: str) -> tuple[Caller, Session]:
        """Who a token stands for. Raises `NotSignedIn`."""
        session, now = self._store.session(token), self._clock.now()
        person = None if session is None else self._store.person(session.name)
        if session is None or person is None or person.disabled or people.is_over(session, now):
            self._store.end(token)
            raise NotSignedIn("this session is over, or never was")
        if now - session.used > NOTED_S:
            self._store.touch(token, now)
        return Caller(person.name, person.roles, "session"), session

    def check_certificate(self, name: str, serial: int) -> None:
        """Raises `PermissionDenied` when an operator's certificate was revoked or made anew."""
        node = self._register.node(name)
        if node is None or (node.revoked is None and int(node.serial, 16) == serial):
            return
        said = "was revoked" if node.revoked is not None else "was made anew"
        self.note(name, "certificate", "session.begin", "denied", why=said, serial=f"{serial:x}")
        raise PermissionDenied(f"the certificate of {name} {said}", "Make one: `reuna site operator`.")

    def sign_out(self, caller: Caller, token: str) -> None:
        """End a session."""
        self._store.end(token)
        self.note(caller.name, caller.via, "session.end", "allowed")

    def people(self) -> list[dict[str, Any]]:
        """Accounts, without what their passwords are known by."""
        return people.listed(self._store.people())

    # --- two people ------------------------------------------------------------------------------

    def needs_two(self, action: str) -> bool:
        """Whether the settings ask for a second person."""
        return action in self._four_eyes

    def propose(self, caller: Caller, action: str, summary: str, content: bytes) -> Proposal:
        """Let something wait for a second person."""
        digest = hashlib.sha256(content).hexdigest()
        proposal = Proposal(secrets.token_hex(4), action, summary, digest, caller.name, self._clock.now())
        self.note(
            caller.name, caller.via, action, "proposed", proposal=proposal.id, digest=digest, target=summary
        )
        self._store.propose(proposal, content)
        return proposal

    def propose_once(self, who: str, action: str, summary: str, content: bytes) -> str:
        """The same for the cloud itself, which asks once for one content; the proposal's id."""
        digest = hashlib.sha256(content).hexdigest()
        same = (each for each in self._store.proposals() if (each.action, each.digest) == (action, digest))
        found = next(same, None) or self.propose(
            Caller(who, frozenset(), "machine"), action, summary, content
        )
        return found.id

    def waits(self, id: str) -> bool:
        """Whether a proposal can still be decided."""
        found = self._store.proposal(id)
        return found is not None and people.is_waiting(found[0], self._clock.now())

    def proposals(self) -> list[dict[str, Any]]:
        """All of them, the newest first, each with whether it still waits."""
        now = self._clock.now()
        return [
            {**msgspec.structs.asdict(each), "waiting": people.is_waiting(each, now)}
            for each in self._store.proposals()
        ]

    def judge(self, caller: Caller, id: str, approve: bool, digest: str) -> tuple[Proposal, bytes]:
        """The proposal with a second person's word, and its content.

        Raises `AccountProblem`, `PermissionDenied`.
        """
        found = self._store.proposal(id)
        if found is None:
            raise AccountProblem(f"there is no proposal {id!r:.40}", "List them: `reuna proposals list`.")
        return people.decide(found[0], caller, approve, digest, self._clock.now()), found[1]

    def decided(self, proposal: Proposal) -> None:
        """Keep that word. Raises `AccountProblem` when there is one."""
        if not self._store.decided(proposal):
            raise AccountProblem(f"proposal {proposal.id} was decided a moment ago", "Look at it again.")
        verdict = f"proposal {proposal.decided}"
        self.note(proposal.decided_by, "session", proposal.action, verdict, proposal=proposal.id)

    # --- the trail -------------------------------------------------------------------------------

    def note(self, who: str, via: str, what: str, verdict: str, **more: str) -> None:
        """Write down what somebody did or tried; on the disk when it returns.

        Raises `DiskFull`, `Corrupted`.
        """
        self._trail.append(self._clock.now(), who, via, what, verdict, **more)

    def audit(self, after: int, last: int = 0) -> list[dict[str, Any]]:
        """The trail from a line on, or of that the last so many lines. Raises `Corrupted`."""
        return list(deque(self._trail.read(after), maxlen=last or None))
