"""Laws of a rollout: whatever nodes say, people order and time does, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.rollout import RolloutSpec, Terms, Wave, opens
from reuna.loop import rollout
from reuna.loop.rollout import Asked, Event, Reports, Said, State, Tick, Verdict, Version, begin, stages, step
from reuna.trust.stages import Stage, staged

NEW, OLD, OTHER = Version(2, "2" * 64), Version(1, "1" * 64), Version(3, "3" * 64)
SITES = {"e1": "north", "e2": "north", "e3": "south", "e4": "south", "e5": "west"}
WAVES = (Wave("e1"), Wave("north"), Wave("60%"), Wave("all"), Wave("group", ("west", "e3")))
VERDICTS: tuple[Verdict, ...] = ("", "shadow", "trial", "confirmed", "rolled_back")
shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])
lengths = st.sampled_from([0.0, 60.0, 600.0])
terms = st.builds(
    Terms,
    shadow_s=lengths,
    soak_s=lengths,
    success=shares,
    errors=shares,
    offline=shares,
    deadline_s=st.sampled_from([100.0, 5000.0]),
    windows=st.sampled_from([(), (), ("12:00-18:00",)]),
)
specs = st.builds(
    lambda waves, terms, back: RolloutSpec("ro-1", "pumps", 2, NEW.sha256, tuple(waves), terms, back=back),
    st.lists(st.sampled_from(WAVES), min_size=1, max_size=4, unique=True),
    terms,
    st.sampled_from([False, False, True]),
)
said = st.builds(
    lambda *each: Reports((Said(*each),)),
    st.sampled_from(sorted(SITES)),
    st.sampled_from([OLD, NEW, OTHER, None]),
    st.sampled_from(VERDICTS),
)
asked = st.builds(Asked, st.sampled_from(["pause", "resume", "resume", "abort"]), st.just("anna"))
events = st.lists(
    st.tuples(
        st.one_of(said, said, said, st.just(Tick()), asked), st.sampled_from([0.0, 1.0, 60.0, 700.0, 9000.0])
    ),
    max_size=25,
)
Life = list[tuple[State, Event, State, float]]


def begun(spec: RolloutSpec) -> State:
    return begin(spec, SITES, dict.fromkeys(SITES, OLD), 0.0)


def lived(spec: RolloutSpec, happened: Sequence[tuple[Event, float]]) -> Life:
    """State before, event, state after, and when."""
    state, now, life = begun(spec), 0.0, Life()
    for event, later in happened:
        now += later
        after, _ = step(state, event, now)
        life.append((state, event, after, now))
        state = after
    return life


def count(state: State, wave: int, verdict: Verdict) -> int:
    return sum(state.nodes[node].verdict == verdict for node in state.waves[wave])


@given(specs, events)
def test_no_wave_begins_before_the_one_before_it_has_succeeded_and_soaked(
    spec: RolloutSpec, happened: list
) -> None:
    reached: dict[int, float] = {}
    for before, _, after, now in lived(spec, happened):
        for wave in range(before.wave, after.wave):
            if wave < 0 or not before.waves[wave]:
                continue
            terms, of = spec.terms, len(before.waves[wave])
            good, back = count(after, wave, "confirmed"), count(after, wave, "rolled_back")
            enough = good >= terms.success * (good + back) or spec.back
            assert after.wave == wave + 1 or terms.soak_s == 0.0 or not after.waves[wave + 1]
            assert now >= reached.get(wave, now) + terms.soak_s
            left = of - good - back
            done = wave not in reached and (enough and (left == 0 or now >= before.began + terms.deadline_s))
            assert wave in reached or done or good >= terms.success * of or before.waived
        if after.phase == "wave" and after.met is not None and after.wave not in reached:
            reached[after.wave] = after.met
            good, back = count(after, after.wave, "confirmed"), count(after, after.wave, "rolled_back")
            assert good >= spec.terms.success * (good + back) - 1e-9 or spec.back


@given(specs, events)
def test_one_error_too_many_ends_it_at_once_and_everybody_has_what_they_had(
    spec: RolloutSpec, happened: list
) -> None:
    for before, _, after, _ in lived(spec, happened):
        too_many = any(
            count(after, wave, "rolled_back") > spec.terms.errors * len(after.waves[wave]) + 1e-9
            for wave in range(after.wave + 1)
        )
        if too_many and not spec.back and not before.final:
            assert after.phase in ("failed", "aborted", "done")
            assert after.phase != "done", "a rollout with too many errors is none that is done"
        if after.phase in ("failed", "aborted"):
            assert live(after) == dict.fromkeys(after.nodes, 1)


@given(specs, events)
def test_a_pause_holds_a_resume_goes_on_and_an_end_is_final(spec: RolloutSpec, happened: list) -> None:
    for before, event, after, _ in lived(spec, happened):
        if before.final:
            assert after == before
        elif before.paused is not None and not (isinstance(event, Asked) and event.order != "pause"):
            held = (after.wave, after.phase) == (before.wave, before.phase)
            assert held or after.phase == "failed"
        elif isinstance(event, Asked) and event.order == "pause":
            assert after.paused is not None or after.final
        if isinstance(event, Asked) and event.order == "abort":
            assert after.final


@given(specs, events)
def test_a_wave_begins_in_a_window_alone(spec: RolloutSpec, happened: list) -> None:
    for before, _, after, now in lived(spec, happened):
        if after.wave > before.wave:
            assert opens(spec.terms.windows, now) == now


@given(specs, events, st.sampled_from([1.0, 90.0, 4000.0]))
def test_a_pause_takes_nothing_from_the_time_that_silent_nodes_have(
    spec: RolloutSpec, happened: list, pause: float
) -> None:
    for _, _, state, now in lived(spec, happened):
        waits = not state.final and state.paused is None and state.phase != "planned" and state.met is None
        if waits and now < state.began + spec.terms.deadline_s:
            paused, _ = step(state, Asked("pause", "anna"), now)
            resumed, _ = step(paused, Asked("resume", "anna"), now + pause)
            assert resumed.began == state.began + pause
            assert not resumed.waived


@given(specs, events)
def test_each_node_has_one_live_version_and_it_is_the_old_one_or_the_new_one(
    spec: RolloutSpec, happened: list
) -> None:
    published: tuple[Stage, ...] = (Stage("pumps", 1, OLD.sha256), Stage("ovens", 1, "3" * 64))
    for _, _, after, _ in lived(spec, happened):
        published = stages(after, published)
        assert stages(after, published) == published, "saying it again changes nothing"
        assert [each for each in published if each.project == "ovens"] == [Stage("ovens", 1, "3" * 64)]
        for name, site in SITES.items():
            mine = [each for each in published if not each.where or {name, site} & {*each.where}]
            found = staged(mine, "pumps")
            moved = any(name in after.waves[wave] for wave in range(after.wave + 1))
            sent_back = after.phase in ("failed", "aborted")
            stays = name not in after.nodes or after.nodes[name].verdict == "rolled_back" or sent_back
            assert found.live is not None
            assert found.live.version == (2 if moved and not stays else 1)


kinds = st.lists(
    st.tuples(
        st.lists(st.sampled_from(WAVES), min_size=1, max_size=3, unique=True),
        st.sampled_from(["done", "aborted"]),
    ),
    min_size=1,
    max_size=6,
)


@given(kinds)
def test_of_many_rollouts_the_last_that_was_done_counts_for_whoever_it_was_for(asked: list) -> None:
    """Also for a node that joined later: it has what its site has, or what is for all."""
    published: tuple[Stage, ...] = (Stage("pumps", 1, OLD.sha256),)
    wanted = dict.fromkeys(SITES, 1)
    later = {"north": 1, "elsewhere": 1}
    for number, (waves, end) in enumerate(asked, 2):
        release = RolloutSpec(
            f"ro-{number}", "pumps", number, f"{number:064x}", tuple(waves), Terms(soak_s=0.0)
        )
        before = {name: Version(version, f"{version:064x}") for name, version in wanted.items()}
        state = begin(release, SITES, before, 0.0)
        published = stages(state, published)
        for _ in waves:
            told = tuple(Said(name, None, "confirmed") for name in state.nodes)
            state, _ = step(state, Asked("abort", "anna") if end == "aborted" else Reports(told), 1.0)
            published = stages(state, published)
        assert state.phase == end
        if end == "done":
            wanted |= dict.fromkeys(state.nodes, number)
            names = {wave.name for wave in waves}
            if {"all", "north"} & names:
                later["north"] = number
            if "all" in names:
                later["elsewhere"] = number
        for name, site in [*SITES.items(), ("new-1", "north"), ("new-2", "elsewhere")]:
            mine = [each for each in published if not each.where or {name, site} & {*each.where}]
            found = staged(mine, "pumps").live
            assert found is not None
            assert found.version == (wanted[name] if name in wanted else later[site])


@given(specs, events)
def test_silent_nodes_hold_no_wave_beyond_its_deadline(spec: RolloutSpec, happened: list) -> None:
    """It goes on without them, or it asks a person: that is said, and a word lets it go on."""
    for _, _, state, now in lived(spec, happened):
        if state.final or state.paused is not None or state.phase == "planned":
            continue
        late = max(now, state.began + spec.terms.deadline_s)
        after, notes = step(state, Tick(), late)
        assert after.final or after.paused is not None or after.met is not None or after.wave > state.wave
        if after.paused is not None:
            assert after.why
            assert [note.what for note in notes] == ["paused"]
            resumed, _ = step(after, Asked("resume", "anna"), late)
            assert resumed.final or resumed.met is not None or resumed.wave > state.wave


@given(specs, events)
def test_it_comes_to_an_end_and_a_node_that_was_away_gets_what_it_came_to(
    spec: RolloutSpec, happened: list
) -> None:
    """Its stage stays in the list, so nobody has to remember it."""
    life = lived(spec, happened)
    state, now = (life[-1][2], life[-1][3]) if life else (begun(spec), 0.0)
    for _ in range(4 * len(WAVES)):
        for node in state.nodes:
            said: Verdict = "shadow" if state.phase == "shadow" else "confirmed"
            state, _ = step(state, Reports((Said(node, NEW, said),)), now)
        state, _ = step(state, Asked("resume", "anna"), now)
        now = opens(spec.terms.windows, now + 10 * spec.terms.deadline_s) or now
        state, _ = step(state, Tick(), now)
    assert state.final
    for node, version in live(state).items():
        away = state.nodes[node].verdict != "rolled_back"
        assert version == (2 if state.phase == "done" and away else 1)


@given(specs, events)
def test_time_comes_from_its_argument_and_what_wakes_it_is_never_late(
    spec: RolloutSpec, happened: list
) -> None:
    """A tick before the moment that was told changes nothing."""
    for _, _, state, now in lived(spec, happened):
        due = rollout.wakes(state, now)
        if state.final:
            assert due is None
            continue
        early = now + 1e9 if due is None else now + (due - now) * 0.99
        if due is None or due > now:
            assert step(state, Tick(), early)[0] == state


@given(specs, events)
def test_a_state_is_the_same_after_the_journal(spec: RolloutSpec, happened: list) -> None:
    for _, _, state, _ in lived(spec, happened):
        assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state


def live(state: State) -> dict[str, int]:
    """Node -> version that is to be live there."""
    found = {node: rollout.runs(state, node)[0] for node in state.nodes}
    return {node: version.version for node, version in found.items() if version is not None}
