"""Registered versions follow the catalogue, whatever was made, promoted and cut off on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.core.errors import Unreachable
from reuna.core.tracking import Registered
from reuna.fleet.registry import send_releases, show
from reuna.fleet.release import Catalogue
from reuna.sim.tracker import MemoryTracker
from tests.catalogues import PROJECT, add, release


class Flaky(MemoryTracker):
    """The next ``good`` calls go well; then one is lost, before it is done or after."""

    good, after = 1000, False

    def _call(self) -> bool:
        self.good -= 1
        if self.good == 0 and not self.after:
            raise Unreachable("lost on the way there")
        return self.good == 0

    def register(self, release: Registered) -> str:
        lost = self._call()
        done = super().register(release)
        if lost:
            raise Unreachable("lost on the way back")
        return done

    def point(self, model: str, aliases: Mapping[str, str]) -> None:
        lost = self._call()
        super().point(model, aliases)
        if lost:
            raise Unreachable("lost on the way back")


STEPS = st.lists(
    st.one_of(
        st.just(("make",)),
        st.tuples(st.just("promote"), st.integers(1, 4)),
        st.tuples(st.just("sync"), st.integers(1, 6), st.booleans()),
        st.just(("show",)),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_after_any_history_one_whole_sync_gives_what_the_catalogue_says(
    steps: list[tuple[object, ...]],
) -> None:
    tracker = Flaky()
    with tempfile.TemporaryDirectory() as place:
        catalogue = Catalogue.of(Path(place), PROJECT)
        for step in steps:
            act(catalogue, tracker, step)
        if not catalogue.versions():
            return
        tracker.good = 1000
        send_releases(tracker, catalogue)
        before = (list(tracker.models[PROJECT]), dict(tracker.aliases[PROJECT]))
        again = send_releases(tracker, catalogue)
        names = {alias: catalogue.read(version).digest for alias, version in catalogue.aliases().items()}
        known = sorted(each.version for each in tracker.models[PROJECT])
    assert set(again.values()) == {"unchanged"}
    assert before == (tracker.models[PROJECT], tracker.aliases[PROJECT])
    assert known == catalogue_versions(again)
    assert tracker.aliases[PROJECT] == names


def act(catalogue: Catalogue, tracker: Flaky, step: tuple[object, ...]) -> None:
    match step:
        case ("make",):
            add(catalogue.folder.parent, release(max(catalogue.versions(), default=0) + 1))
        case ("promote", int(version)) if version in catalogue.versions():
            catalogue.promote(version)
        case ("sync", int(good), bool(after)):
            tracker.good, tracker.after = good, after
            try:
                send_releases(tracker, catalogue) if catalogue.versions() else None
            except Unreachable:
                pass
        case ("show",) if catalogue.versions():
            show(lambda: tracker, catalogue, lambda _: None)


def catalogue_versions(done: Mapping[str, str]) -> list[int]:
    return sorted(int(name.rpartition(" ")[2]) for name in done)
