"""What the cloud hears of a run goes on as spans."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reuna.adapters.files import FileBlob
from reuna.cloud.settings import CLOUD
from reuna.cloud.traces import Traces, traces_of
from reuna.core.errors import ExtraMissing, SettingsError, Untrusted
from reuna.core.records import Event, RunSpec
from reuna.core.settings import Source, parse
from reuna.core.trace import Span, whole_id, worked
from tests.releases import release, target
from tests.unit.core.test_trace import PLAN, ROUND

SPEC = RunSpec(
    "r-1", "pumps", "classification", "f1", 2, "fedavg", {"f1": ("e1",)}, "0" * 64, 8, 1, "0" * 64, 1
)


class Sent(list[Span]):
    def take(self, span: Span) -> None:
        self.append(span)

    def close(self) -> None:
        self.append(None)  # type: ignore[arg-type]


class Shelf:
    """A `Stock` of releases as files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.there = folder, [target(release(1), 1)]

    def listed(self) -> tuple[Any, ...]:
        return tuple(self.there)

    async def get(self, digest: str) -> FileBlob | None:
        path = self.folder / digest
        return FileBlob(path, digest, path.stat().st_size) if path.exists() else None


def test_every_place_is_told_apart() -> None:
    sent = Sent()
    traces = Traces("cloud", sent, {"e1": "f1"})
    for event in (ROUND, worked("f1", "b", 0, PLAN, 96.0, 99.5), worked("e1", "b", 0, PLAN, 96.5, 99.0)):
        traces.heard(event)
    traces.heard(Event("e1", "b", 1, 100.0, "started"))
    assert [(each.place, each.name) for each in sent] == [
        ("cloud", "round 1"), ("fog", "combine f1"), ("edge", "train e1"),
    ]  # fmt: skip
    assert sent[2].parent == sent[1].id


@pytest.mark.parametrize("why", ["", "R307"])
def test_a_run_ends_with_or_without_a_result(why: str) -> None:
    sent = Sent()
    Traces("cloud", sent, {}).ended(SPEC, 10.0, 70.0, why)
    (span,) = sent
    assert (span.id, span.began_s, span.ended_s, span.failed) == (whole_id("r-1"), 10.0, 70.0, bool(why))
    assert span.attributes.get("reuna.why", "") == why
    assert span.attributes["reuna.strategy"] == "fedavg"


async def test_a_release_is_in_the_trace_of_its_run_once_and_only_when_it_is_new(tmp_path: Path) -> None:
    sent, shelf = Sent(), Shelf(tmp_path)
    traces = Traces("cloud", sent, {})
    traces.known(shelf)  # type: ignore[arg-type]
    two = target(release(2), 2)
    shelf.there.append(two)
    await traces.published(shelf, 5.0)  # type: ignore[arg-type]
    assert not sent, "its bytes are not here yet"
    (tmp_path / two.digest).write_bytes(release(2))
    for now in (7.0, 8.0):
        await traces.published(shelf, now)  # type: ignore[arg-type]
    (span,) = sent
    assert (span.name, span.parent, span.began_s) == ("release pumps 2", whole_id("r-2"), 7.0)


async def test_what_is_no_release_is_said_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def listed() -> None:
        raise Untrusted("expired", "the list is too old")

    traces, stock = Traces("cloud", Sent(), {}), SimpleNamespace(listed=listed)
    traces.known(stock)  # type: ignore[arg-type]
    await traces.published(stock, 1.0)  # type: ignore[arg-type]
    assert caplog.text.count("the list is too old") == 2


def of_cloud(**traces: object) -> dict[str, Any]:
    given = {"traces": traces} if traces else {}
    table = tuple(each for each in CLOUD if each.name.startswith(("traces.", "fleet", "name")))
    return parse(table, [Source("cloud.toml", {"fleet": "line", **given})])


def test_off_by_default_and_then_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert traces_of(of_cloud(), {}) is None
    with pytest.raises(ExtraMissing, match=r"traces\.on"):
        traces_of(of_cloud(on=True), {})


def test_an_endpoint_is_an_address_of_the_web() -> None:
    with pytest.raises(SettingsError, match=r"traces\.endpoint is .*must begin with http"):
        of_cloud(on=True, endpoint="127.0.0.1:4318")
