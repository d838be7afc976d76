"""A machine without disk or models: what `reuna.loop.operate` says is done, and its laws are held against it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reuna.core.health import Health
from reuna.loop.operate import (
    Booted,
    Chosen,
    Counts,
    Event,
    Fill,
    Put,
    Ran,
    Run,
    SelfTest,
    SelfTested,
    SlotName,
    State,
    Which,
    due,
    is_given_up,
    running,
    step,
)

RULES = Health(
    trial_s=10, min_windows=4, max_safe=0.5, max_restarts=2, min_agreement=0.5, watch_s=60, back_every_s=600
)
KINDS = ("good", "good", "fails its test", "restarts", "safe", "slow")
HEALTHY = Counts(windows=4, agreed=4)
DID = {
    "good": HEALTHY,
    "restarts": Counts(restarts=3),
    "safe": Counts(windows=4, safe=4, agreed=4),
    "slow": Counts(windows=4, slow=1, agreed=4),
}


def which(number: int, rollout: str = "") -> Which:
    return Which(number, f"{number:064x}", rollout)


@dataclass
class Machine:
    """The rim, with a disk that keeps what was made durable and nothing else."""

    kinds: tuple[str, ...]
    state: State = field(default_factory=State)
    files: dict[SlotName, str] = field(default_factory=dict)
    confirmed: str = ""  #: the digest that was confirmed last
    was_working: bool = False
    seen: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)  #: digests that were not measured here
    sour: set[str] = field(default_factory=set)  #: digests that have become bad
    weather: bool = False  #: the machine is such that every release is unsure
    ran_s: float = 0.0
    backs: list[float] = field(default_factory=list)  #: when a confirmed release was left for another

    def kind(self, digest: str) -> str:
        return self.kinds[int(digest, 16) % len(self.kinds)]

    def happen(self, event: Event) -> None:
        before = self.state
        self.state, effects = step(before, event, 1.0)
        assert effects == due(self.state), "what is due follows from the state alone"
        self._laws(before, event)

    def _laws(self, before: State, event: Event) -> None:
        active = running(self.state)
        if active is not None:
            assert self.files.get(self.state.active or "a") == active.which.digest, "its file is there, whole"
            assert active.tested, "nothing answers that has not tested itself"
            assert self.kind(active.which.digest) != "fails its test"
            if active.confirmed:
                assert self.kind(active.which.digest) == "good", "a bad release is never kept"
        self._way_back(before, event)
        if self.was_working:
            assert active is not None, "there was a working one, and now there is none"
        trial_ended = before.trial is not None and self.state.trial is None
        if trial_ended and self.confirmed and self.state.phase == "rolled_back":
            assert active is not None
            assert active.which.digest == self.confirmed, "the way back leads to what was confirmed last"
        switched = before.active != self.state.active and active is not None and not active.confirmed
        if switched and active is not None and before.active and isinstance(event, SelfTested):
            assert active.which.digest not in self.away, "what was not measured here runs beside first"
        if before.trial is not None and not isinstance(event, Booted) and _confirmed(before):
            stays = _confirmed(before) & _confirmed(self.state)
            assert stays or (active is not None and active.confirmed), "a trial leaves the way back alone"
        if active is not None and active.confirmed:
            self.confirmed, self.was_working = active.which.digest, True
        for effect in due(self.state):
            if isinstance(effect, Fill):
                assert effect.slot != self.state.active, "what answers is not written over"
                assert not (self.state.trial and self.holds_confirmed(effect.slot)), "nor the way back"
                assert not is_given_up(self.state, effect.which)
            if isinstance(effect, SelfTest):
                assert self.files.get(effect.slot) == effect.digest
        again, _ = step(self.state, Chosen(self.state.choice), 2.0)
        assert again == self.state, "hearing the same again changes nothing"

    def _way_back(self, before: State, event: Event) -> None:
        """The laws of what was confirmed and is left for its health."""
        left, now = running(before), running(self.state)
        if not isinstance(event, Ran) or left is None or not left.confirmed or now == left:
            return
        if before.candidate is not None and before.candidate.mode == "live":
            return  # it was not measured here, ran beside, and is on trial now
        if now is not None and now.which.digest == left.which.digest:
            return
        assert now is not None, "something answers still"
        assert self.state.phase == "rolled_back"
        assert now.confirmed and now.tested
        assert now.which.digest in {each.digest for each in self.state.choice.held}, "it is listed still"
        assert not self.weather, "what every release suffers is the fault of none"
        assert now.which.digest not in self.sour, "it is better"
        if self.backs:
            assert self.ran_s - self.backs[-1] >= RULES.back_every_s, "not twice in so long"
        self.backs.append(self.ran_s)

    def holds_confirmed(self, slot: SlotName) -> bool:
        copy = self.state.a if slot == "a" else self.state.b
        return copy is not None and copy.confirmed

    # --- what may happen -----------------------------------------------------------------------

    def work(self, torn: bool = False) -> bool:
        """Carry out the next effect; ``torn``: the power goes in the middle. False when nothing is due."""
        for effect in due(self.state):
            if isinstance(effect, Fill):
                self.files[effect.slot] = "torn" if torn else effect.which.digest
                if not torn:
                    digest = effect.which.digest
                    self.happen(Put(effect.slot, digest, RULES, digest not in self.away))
                return True
            if isinstance(effect, SelfTest):
                bad = self.kind(effect.digest) == "fails its test"
                if not torn:
                    self.happen(SelfTested(effect.slot, effect.digest, "row 1 is off" if bad else ""))
                return True
        return False

    def boot(self) -> None:
        self.happen(Booted({slot: digest for slot, digest in self.files.items() if digest != "torn"}))

    def rot(self) -> None:
        """A file is damaged while the machine is off: that of the other slot, or, where the other slot holds
        what was confirmed before, that of the active one.
        """
        other: SlotName = "b" if self.state.active == "a" else "a"
        if self.state.trial is not None and self.holds_confirmed(other):
            self.files[self.state.active or "a"] = "torn"
        elif other in self.files:
            self.files[other] = "torn"
        self.boot()

    def run(self, seconds: float = 5.0) -> None:
        active, shadow = (effect for effect in due(self.state) if isinstance(effect, Run)), Counts()
        (run,) = active
        if run.beside:
            shadow = self.does(self.files[run.beside])
        did = self.does(self.files[run.active]) if run.active and seconds else Counts()
        self.ran_s += seconds
        self.happen(Ran(seconds, did, shadow))

    def does(self, digest: str) -> Counts:
        """What a release does in a turn."""
        if self.weather or digest in self.sour:
            return Counts(windows=4, safe=4, agreed=4, failed=4)
        return DID[self.kind(digest)]

    def live_on(self, turns: int) -> None:
        """So many turns, and what is due in between."""
        for _ in range(turns):
            while self.work():
                pass
            self.run()

    def settle(self) -> None:
        """Until nothing is due and no trial goes on."""
        for _ in range(200):
            if not self.work():
                coming = self.state.candidate
                if self.state.trial is None and (coming is None or coming.mode == "shadow"):
                    return
                self.run()
        raise AssertionError("it does not come to rest")


def _confirmed(state: State) -> set[str]:
    """Digests of what was confirmed and is still in a slot."""
    return {copy.which.digest for copy in (state.a, state.b) if copy is not None and copy.confirmed}
