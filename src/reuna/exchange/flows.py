"""Every payload asks here before it leaves, and says afterwards what became of it.

decide → reserve → write down → send → outcome. The site's policy decides; what is allowed counts
as spent from then on; the ledger has it on the disk before the first byte leaves. A crash in
between costs the budget, never a second payload under it: the same bytes, sent again after a
restart, leave under the entry they have.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, Protocol, TypeVar

import msgspec

from reuna.core.errors import NotApproved, Refused, ReunaError
from reuna.core.ports import Clock
from reuna.core.records import Rehearsal, Terms, Work
from reuna.exchange.allowance import MESSAGES, Allowance, give_back
from reuna.exchange.intents import Leaving, Standing, epsilon_left, free, intent_of, many
from reuna.trust.decide import decide, decide_code, decide_moment, decide_reading
from reuna.trust.foretell import Ahead, foretell, nothing
from reuna.trust.ledger import Entry
from reuna.trust.policy import ANY, DATASET, FlowRule, Policy
from reuna.trust.rehearse import request_of
from reuna.trust.requests import Allow, Deny, Reading, Request, State, Verdict, Wait, spend

T = TypeVar("T")
AGAIN_S = 60.0  #: the same refusal is written down again after so long
SHOWN = 150  #: characters of columns' names in one entry of the ledger
REMEMBERED = 4096  #: payloads whose entry is known, so that the same bytes are not counted twice
NEVER = "code"  #: why a policy refuses code that its officers are not to be asked about
RUNS = "runs"  #: what the ledger says of a bundle when it is let
STOPPED = "stopped"  #: why nothing leaves while the kill switch is on
NONE_LEAVES = 2**53  #: rows behind a count where no rule lets any leave
REPEATS = ("presence",)  #: kinds whose equal bytes are another payload each time
TO_A_SINK = "sink/"  #: begins the run of what goes to a sink, whose tries take days
WINDOW = "window"  #: of which the same may leave again days later


Passage = tuple[int, ...]  #: numbers of the ledger's entries under which payloads leave


class Memory(msgspec.Struct, frozen=True):
    """What `SiteFlows` knows from its ledger: an opening that has it need not read what is before.

    ``known``: kind, payload, plan, number of the entry; ``reserved``: allowances that are not settled;
    ``ran`` and ``reads``: what the ledger says last of code that runs and reads.
    """

    state: State
    known: list[tuple[str, str, str, int]]
    policy: str
    ran: str
    reserved: dict[int, Request]
    reads: str = ""


class FlowControl(Protocol):
    """What the egress asks. Blocking."""

    def leave(self, *payloads: Leaving) -> Passage:
        """All of them or none; durable when it returns.

        Raises `Refused` ('policy'; with ``until`` when it may leave later), `DiskFull`, `Corrupted`.
        """

    def moment(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """Whether anything of that many bytes may leave now. Raises as `leave`, and writes it down.

        And in the same look the terms of `approved` for ``work``: None for none, and where that is refused,
        which whoever asks hears of.
        """

    def glance(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """What `moment` says, for an event loop: it neither waits nor reads a file nor writes anything down.

        Raises `BlockingIOError` where `moment` would.
        """

    def mark(self) -> str:
        """Other words whenever another policy is in force, or the kill switch is turned."""

    def arrived(self, passage: Passage, outcome: str) -> None:
        """What became of payloads that left; written down with the next ones."""

    def stayed(self, payload: Leaving) -> None:
        """One of the messages that repeat, let to leave a moment ago, did not leave after all."""

    def listed(self, kind: str, to: str, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that payloads of a kind may carry; that others stay is written down.

        Raises `DiskFull`, `Corrupted`.
        """

    def least_cell(self, kind: str, to: str) -> int:
        """Rows that must be behind the smallest count of a kind, by the rule that asks for fewest.

        Without any rule of that kind more than there can be.
        """

    def approved(self, work: Work, unsigned: str) -> Terms:
        """On what terms a bundle may run here and read this node's data.

        ``unsigned``: why the fleet's code role does not vouch for it, empty when it does. Raises
        `NotApproved` while officers or that role can still let it run, `Refused` ('policy') when the
        policy takes no new code at all or lets it read nothing.
        """

    def rehearse(self, ahead: Ahead) -> Rehearsal:
        """What the policy would say to all that a run would ask; nothing is spent or written down."""


class Ledger(Protocol):
    """What is written down."""

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        """Numbers of the entries, on the disk. Raises `DiskFull`, `Corrupted`."""


Rules = Callable[[float], Standing]  #: the policy in force at a time, seconds since the epoch
AtHand = Callable[[float], Standing | None]  #: the same without reading a file, None where one is to be read


class SiteFlows:
    """`FlowControl` by the site's policy and into its ledger; its threads may share it."""

    def __init__(
        self,
        ledger: Ledger,
        rules: Rules,
        clock: Clock,
        past: Iterable[tuple[int, Entry]],
        memory: Memory | None = None,
        dataset: str = DATASET,
        at_hand: AtHand = lambda _now: None,
    ) -> None:
        """``past``: entries of the ledger, those behind ``memory`` if there is one.

        ``dataset``: what the policy's sources call this node's data.
        """
        self._at_hand = at_hand
        self._dataset = dataset
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._lock = threading.Lock()
        self._state = State()
        self._known: dict[tuple[str, str, str], int] = {}  #: kind, payload, plan
        self._outcomes: list[Entry] = []
        self._allowances: dict[tuple[str, str], Allowance] = {}  #: kind, recipient
        self._refusals: dict[tuple[str, str, str], float] = {}
        self._policy = ""
        self._ran = ""  #: the bundle that the ledger says runs
        self._reads = ""  #: what the ledger says is read, by whom, under which policy
        self._reserved: dict[int, Request] = {}  #: allowances of before a restart, until they are settled
        if memory is not None:
            self._state, self._policy, self._ran = memory.state, memory.policy, memory.ran
            self._reads = memory.reads
            self._known = {tuple(key): number for *key, number in memory.known}  # type: ignore[misc]
            self._reserved = dict(memory.reserved)
        for number, entry in past:
            self._recall(number, entry)

    def leave(self, *payloads: Leaving) -> Passage:
        """See `FlowControl.leave`."""
        with self._lock:
            standing = self._rules(self._clock.now())
            if len(payloads) == 1 and payloads[0].request.kind in REPEATS:
                return self._leave_again(standing, payloads[0])
            known = {index: self._number(each) for index, each in enumerate(payloads)}
            again = [each for index, each in enumerate(payloads) if known[index] is not None]
            self._decide(standing, [_paid(each) for each in again if _again_asked(each.request)])
            new = [each for index, each in enumerate(payloads) if known[index] is None]
            state, intents = self._decide(standing, new)
            numbers = self._write(standing, intents)
            self._state = state  # a full disk took no entry: each try would spend the budget again
            for each, number in zip(new, numbers, strict=True):
                self._remember(each.request.kind, each.payload, each.plan, number)
            fresh = iter(numbers)
            return tuple(next(fresh) if number is None else number for number in known.values())

    def memory(self, mark: Callable[[], T]) -> tuple[T, Memory]:
        """What is known, and where the ledger ended at that very moment."""
        with self._lock:
            known = [(*key, number) for key, number in self._known.items()]
            open_ones = {each.number: each.request for each in self._allowances.values()}
            reserved = {**self._reserved, **open_ones}
            spent = msgspec.structs.replace(self._state, valid=False, why="", stopped=False)
            return mark(), Memory(spent, known, self._policy, self._ran, reserved, self._reads)

    def moment(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """See `FlowControl.moment`."""
        now = self._clock.now()
        with self._lock:
            standing = self._rules(now)
            if standing.policy is not None:  # else who asks for more hears what is missing
                leaving = Leaving(Request("answer", to, size, now), "")
                verdict = decide_moment(standing.policy, self._standing(standing), leaving.request)
                if not isinstance(verdict, Allow):
                    self._refuse(standing, _NoError(leaving, standing, verdict))
            if work is None:
                return None
            try:
                return self._terms(standing, work, unsigned, now)
            except ReunaError:
                return None

    def glance(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """See `FlowControl.glance`."""
        if not self._lock.acquire(blocking=False):
            raise BlockingIOError
        try:
            return self._said_before(self._at_hand(self._clock.now()), size, to, work, unsigned)
        finally:
            self._lock.release()

    def _said_before(
        self, standing: Standing | None, size: int, to: str, work: Work | None, unsigned: str
    ) -> Terms | None:
        """What all of the policy allows, if the ledger says so already. Raises `BlockingIOError`."""
        now = self._clock.now()
        if standing is None or standing.policy is None:
            raise BlockingIOError
        policy, state = standing.policy, self._standing(standing)
        verdicts: list[Verdict] = [decide_moment(policy, state, Request("answer", to, size, now))]
        terms, said = None, True
        if work is not None:
            verdict, columns = self._readable(policy, state, work)
            verdicts += [decide_code(policy, state, work.bundle, now, unsigned), verdict]
            terms = Terms(policy.code.min_sandbox_level, columns)
            said = work.bundle == self._ran and self._reads == self._reading(standing, work, columns)
        if not said or not all(isinstance(each, Allow) for each in verdicts):
            raise BlockingIOError
        return terms

    def mark(self) -> str:
        """See `FlowControl.mark`."""
        standing = self._rules(self._clock.now())
        return f"{standing.digest} {standing.stopped} {standing.why}"

    def approved(self, work: Work, unsigned: str) -> Terms:
        """See `FlowControl.approved`."""
        now = self._clock.now()
        with self._lock:
            return self._terms(self._rules(now), work, unsigned, now)

    def _terms(self, standing: Standing, work: Work, unsigned: str, now: float) -> Terms:
        """Raises as `approved`."""
        state = self._standing(standing)
        policy, bundle = standing.policy, work.bundle
        leaving = Leaving(Request("code", "", 0, now, work.run, code=bundle), "")
        if policy is None:
            self._disapprove(standing, leaving, Deny("no-policy", standing.why, ""))
        verdict = decide_code(policy, state, bundle, now, unsigned)
        if isinstance(verdict, Deny):
            self._disapprove(standing, leaving, verdict)
        reading, columns = self._readable(policy, state, work)
        if isinstance(reading, Deny):
            self._refuse(standing, _NoError(leaving, standing, reading))
        if bundle != self._ran:
            self._note(standing, leaving, verdict.rule, RUNS)
        if self._reads != self._reading(standing, work, columns):
            self._note(standing, leaving, reading.rule, self._what(work, columns))
        return Terms(policy.code.min_sandbox_level, columns)

    def _what(self, work: Work, columns: tuple[str, ...] | None) -> str:
        """What code reads, in the ledger's words."""
        return f"reads {_seen(columns)} of {self._dataset} for {work.purpose}"

    def _reading(self, standing: Standing, work: Work, columns: tuple[str, ...] | None) -> str:
        """See `_reads`."""
        return f"{work.run} {work.bundle} {standing.digest} {self._what(work, columns)}"

    def rehearse(self, ahead: Ahead) -> Rehearsal:
        """See `FlowControl.rehearse`."""
        now = self._clock.now()
        with self._lock:
            standing = self._rules(now)
            state = self._standing(standing)
        if standing.policy is None:
            return nothing(ahead)
        return foretell(standing.policy, state, self._dataset, ahead, now)

    def _disapprove(self, standing: Standing, leaving: Leaving, verdict: Deny) -> NoReturn:
        """Write down that code may not run. Raises `Refused`, or `NotApproved` where it may yet."""
        no = _NoError(leaving, standing, verdict)
        if verdict.reason in (NEVER, STOPPED):
            self._refuse(standing, no)
        self._write(standing, self._refusal(no))
        raise NotApproved(verdict.why)

    def _readable(
        self, policy: Policy, state: State, work: Work
    ) -> tuple[Allow | Deny, tuple[str, ...] | None]:
        """Whether code may read this node's data, and which columns (None: all)."""
        whole = Reading(self._dataset, (ANY,), work.purpose, self._clock.now())
        verdict, source = decide_reading(policy, state, whole), policy.sources.get(self._dataset)
        if isinstance(verdict, Allow):
            return verdict, None
        listed = source.columns if source else ()
        return decide_reading(policy, state, msgspec.structs.replace(whole, columns=listed)), listed

    def _note(self, standing: Standing, leaving: Leaving, rule: str, what: str) -> None:
        """Write down what code does here."""
        intent = intent_of(leaving, standing, rule, self._now_ms())
        said = msgspec.structs.replace(intent, kind="code", flow="", reason=what)
        self._write(standing, [said])
        self._recall_code(said)

    def _recall_code(self, said: Entry) -> None:
        """What code does here need not be said again."""
        if said.reason == RUNS:
            self._ran = said.code
        elif said.decision == "allow":
            self._reads = f"{said.run} {said.code} {said.policy} {said.reason}"

    def arrived(self, passage: Passage, outcome: str) -> None:
        """See `FlowControl.arrived`."""
        now = self._now_ms()
        with self._lock:
            self._outcomes += [
                Entry(time_ms=now, kind="outcome", intent=each, reason=outcome) for each in passage
            ]

    def listed(self, kind: str, to: str, names: Iterable[str]) -> frozenset[str]:
        """See `FlowControl.listed`."""
        wanted, now = frozenset(names), self._clock.now()
        with self._lock:
            standing = self._rules(now)
            allowed = frozenset[str]() if standing.policy is None else _names(standing.policy, kind, to)
            kept = wanted if allowed is None else wanted & allowed
            if standing.policy is not None and kept != wanted:
                stays = ", ".join(sorted(wanted - kept))
                said = Deny("names", f"{stays} stays here: no rule lists it", f"{kind} names")
                leaving = Leaving(Request(kind, to, 0, now, metrics=tuple(sorted(wanted - kept))), "")
                self._write(standing, self._refusal(_NoError(leaving, standing, said)))
            return kept

    def least_cell(self, kind: str, to: str) -> int:
        """See `FlowControl.least_cell`."""
        policy = self._rules(self._clock.now()).policy
        rules = () if policy is None else _rules_for(policy, kind, to)
        return min((rule.min_cell for rule in rules), default=NONE_LEAVES)

    def stayed(self, payload: Leaving) -> None:
        """See `FlowControl.stayed`. One whose minute is over is written down as sent: that hides nothing."""
        with self._lock:
            held = self._allowances.get((payload.request.kind, payload.request.to))
            if held is not None:
                held.take_back(payload.request, payload.payload)

    def flush(self) -> None:
        """Write down outcomes that wait. Raises `DiskFull`, `Corrupted`, and then keeps them."""
        now = self._clock.now()
        with self._lock:
            self._settle([each for each in self._allowances.values() if each.is_over(now)])
            self._write(self._rules(now), [])

    def close(self) -> None:
        """`flush`, and settle every allowance: nothing leaves any more."""
        with self._lock:
            self._settle(list(self._allowances.values()))
            self._write(self._rules(self._clock.now()), [])

    # --- small messages, again and again -----------------------------------------------------------

    def _leave_again(self, standing: Standing, each: Leaving) -> Passage:
        """Under the allowance that is open, or a new one; its outcome is written by the allowance."""
        place = each.request.kind, each.request.to
        held = self._allowances.get(place)
        if held is not None and held.fits(each.request, standing.digest) and not standing.stopped:
            self._decide(standing, [msgspec.structs.replace(each, request=free(each.request))])
        else:
            if held is not None:
                self._settle([held])
            held = self._allowances[place] = self._allow(standing, each)
        held.take(each.request, each.payload)
        return ()

    def _allow(self, standing: Standing, each: Leaving) -> Allowance:
        """Reserve as many messages as usual; when the budget has no room for them, this one."""
        most = MESSAGES
        if standing.policy is not None and not standing.stopped:
            state, asked = self._standing(standing), many(each.request, most)
            most = most if isinstance(decide(standing.policy, state, asked), Allow) else 1
        request = many(each.request, most)
        state, (intent,) = self._decide(standing, [Leaving(request, "")])
        (number,) = self._write(standing, [msgspec.structs.replace(intent, messages=most)])
        self._state = state
        return Allowance(number, request, most, standing.digest)

    def _settle(self, allowances: list[Allowance]) -> None:
        """What left under them waits to be written; what did not is given back."""
        for each in allowances:
            said = each.outcome(self._now_ms())
            self._outcomes.append(said)
            self._state = give_back(self._state, each.request, said.payload_bytes)
            del self._allowances[each.request.kind, each.request.to]

    # --- deciding --------------------------------------------------------------------------------

    def _decide(self, standing: Standing, payloads: list[Leaving]) -> tuple[State, list[Entry]]:
        """The state once they left, and their intents. Raises `Refused`, which is written down."""
        try:
            return self._reserve(standing, payloads)
        except _NoError as no:
            self._refuse(standing, no)

    def _refuse(self, standing: Standing, no: _NoError) -> NoReturn:
        """Write down that something may not leave. Raises `Refused`."""
        self._write(standing, self._refusal(no))
        raise Refused("policy", no.why, no.until) from None

    def _standing(self, standing: Standing) -> State:
        return msgspec.structs.replace(
            self._state, valid=standing.policy is not None, why=standing.why, stopped=standing.stopped
        )

    def _reserve(self, standing: Standing, payloads: list[Leaving]) -> tuple[State, list[Entry]]:
        state, intents = self._standing(standing), []
        for each in payloads:
            rule = _allowed(standing, state, each)
            state = spend(state, each.request)
            intent = intent_of(each, standing, rule, self._now_ms())
            left = epsilon_left(standing, state, rule, each.request)
            intents.append(msgspec.structs.replace(intent, epsilon_left=left))
        return state, intents

    def _number(self, each: Leaving) -> int | None:
        return self._known.get((each.request.kind, each.payload, each.plan))

    def _remember(self, kind: str, payload: str, plan: str, number: int) -> None:
        """Equal bytes for another plan hide in another cohort, so they are another payload."""
        self._known[kind, payload, plan] = number
        if len(self._known) > REMEMBERED:
            self._known.pop(next(iter(self._known)))

    def _recall(self, number: int, entry: Entry) -> None:
        """Count what left before a restart."""
        if entry.kind == "policy":
            self._policy = entry.policy
        if entry.kind == "outcome" and entry.intent in self._reserved:
            reserved = self._reserved.pop(entry.intent)
            self._state = give_back(self._state, reserved, entry.payload_bytes)
        if entry.kind == "code":
            self._recall_code(entry)
        if entry.kind != "intent":
            return
        self._state = spend(self._state, request_of(entry))
        if entry.messages:
            self._reserved[number] = request_of(entry)
        else:
            self._remember(entry.flow, entry.payload, entry.plan, number)

    # --- writing down ----------------------------------------------------------------------------

    def _write(self, standing: Standing, entries: list[Entry]) -> list[int]:
        """Numbers of the entries, with what waits before them: outcomes, another policy in force."""
        waiting = [*self._changed(standing), *self._outcomes]
        if not waiting and not entries:
            return []
        numbers = self._ledger.append_all([*waiting, *entries])
        self._policy = standing.digest
        self._outcomes = []
        return numbers[len(waiting) :]

    def _changed(self, standing: Standing) -> list[Entry]:
        """An entry when another policy is in force than the ledger says."""
        if standing.digest == self._policy:
            return []
        serial = standing.policy.serial if standing.policy else 0
        reason = standing.why or "another policy is in force"
        return [
            Entry(
                time_ms=self._now_ms(),
                kind="policy",
                policy=standing.digest,
                policy_serial=serial,
                reason=reason,
            )
        ]

    def _refusal(self, no: _NoError) -> list[Entry]:
        """An entry, unless the same refusal was written down moments ago."""
        request, now = no.leaving.request, self._clock.now()
        key = (request.kind, request.to, no.reason)
        if now - self._refusals.get(key, -AGAIN_S) < AGAIN_S:
            return []
        self._refusals[key] = now
        intent = intent_of(no.leaving, no.standing, no.rule, self._now_ms())
        return [
            msgspec.structs.replace(
                intent, kind="refused", decision=no.decision, reason=f"{no.reason}: {no.why}", epsilon=0.0
            )
        ]

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


class _NoError(Exception):
    """A payload may not leave."""

    def __init__(self, leaving: Leaving, standing: Standing, verdict: Deny | Wait) -> None:
        self.until = verdict.until if isinstance(verdict, Wait) else None
        if verdict.reason == STOPPED:  # until somebody takes the switch off
            self.until = math.inf
        self.leaving = leaving
        self.standing = standing
        self.decision = "wait" if isinstance(verdict, Wait) else "deny"
        self.reason, self.why, self.rule = verdict.reason, verdict.why, verdict.rule


def _again_asked(request: Request) -> bool:
    """Whether the policy is asked again before the same bytes leave again."""
    return request.kind == WINDOW or request.run.startswith(TO_A_SINK)


def _paid(leaving: Leaving) -> Leaving:
    """The same, when all of it counts as spent already."""
    request = msgspec.structs.replace(free(leaving.request), values=0, metrics=())
    return msgspec.structs.replace(leaving, request=request)


def _seen(columns: tuple[str, ...] | None) -> str:
    """Columns as the ledger has room for them; the policy whose digest stands beside names them all."""
    if columns is None:
        return "all columns"
    names = ", ".join(columns)
    return names if len(names) <= SHOWN else f"{len(columns)} columns"


def _allowed(standing: Standing, state: State, leaving: Leaving) -> str:
    """The rule under which it may leave. Raises `_NoError`."""
    if standing.policy is None:
        raise _NoError(leaving, standing, Deny("no-policy", standing.why, ""))
    verdict = decide(standing.policy, state, leaving.request)
    if not isinstance(verdict, Allow):
        raise _NoError(leaving, standing, verdict)
    return verdict.rule


def _rules_for(policy: Policy, kind: str, to: str) -> list[FlowRule]:
    """Rules of a kind that name a recipient."""
    called = {name for name, identity in policy.recipients.items() if identity == to}
    return [rule for rule in policy.flows if rule.kind == kind and called & set(rule.to)]


def _names(policy: Policy, kind: str, to: str) -> frozenset[str] | None:
    """Names on the lists of all rules of a kind for a recipient; None: any."""
    lists = [rule.names for rule in _rules_for(policy, kind, to)]
    if any(names is None or ANY in names for names in lists):
        return None
    return frozenset(name for names in lists for name in names or ())
