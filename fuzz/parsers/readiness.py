"""`reuna.core.readiness`: what a plan says of a project's needs, and what a node may answer to it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from fuzz.kit import DIGEST, PLAN, attempt
from reuna.core.errors import ABSENCES, BadMessage, Refused, SettingsError
from reuna.core.readiness import ABOUT, KEY, LOWER_BOUND, MAX_MODULES, Module, Needs, as_settings, needs_of
from reuna.core.records import Contribution, Member, Said
from reuna.loop import train
from reuna.trust.requests import REASONS
from reuna.wire import decode, encode

NEEDS = Needs((Module("torch", "torch", "2.13.0"), Module("numpy")), ("all",), "ab" * 32)
CHECK = replace(PLAN, task="check", settings={**PLAN.settings, **as_settings(NEEDS)})
SAID = (
    Said("code", "wait", "code-ask"),
    Said("libraries", "no", "torch"),
    Said("memory", "yes", LOWER_BOUND),
)
WORDS = {"", LOWER_BOUND, "torch", "numpy", *REASONS, *ABSENCES}


def seeds() -> Iterator[bytes]:
    yield str(as_settings(NEEDS)[KEY]).encode()
    yield encode(train.answer(CHECK, DIGEST, Member("edge-1", metrics={"memory_free_mib": 9.0}, said=SAID)))


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    needs = attempt(lambda: needs_of({KEY: text}), SettingsError)
    assert needs is None or len(needs.modules) <= MAX_MODULES
    manifest = attempt(lambda: decode(Contribution, data), BadMessage)
    if manifest is not None:
        _judge(manifest)


def _judge(manifest: Contribution) -> None:
    def admit() -> Contribution:
        train.admit(CHECK, DIGEST, manifest, manifest.sender, ("edge-1", "edge-2", "fog-1"), closed=False)
        return manifest

    row = attempt(admit, Refused)
    if row is None:
        return
    assert row.kind == "report"
    said = [each for member in row.members for each in member.said]
    assert all(each.about in ABOUT and each.why in WORDS for each in said)
