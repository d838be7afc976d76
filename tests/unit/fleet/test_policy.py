"""The starter policies: each is read, and lets an ordinary run through and nothing beside it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.ledger_file import LedgerFile
from reuna.adapters.trust_keys import new_key
from reuna.core.errors import Refused, SettingsError
from reuna.core.records import Grid, Member, Plan, Work
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intents import Leaving, Standing
from reuna.exchange.payloads import contribution, made_for
from reuna.fleet.ledger import export as export_ledger
from reuna.fleet.policy import PRESETS, overview, sign_file, simulate, starter
from reuna.loop import train
from reuna.trust.decide import decide
from reuna.trust.heads import Signer
from reuna.trust.policy import KINDS, Code, CodeEntry, Policy, Tensors, Validity, digest
from reuna.trust.policy_text import parse
from reuna.trust.requests import Allow, Deny, Hidden, Request
from tests.unit.trust.site import CLOUD, CODE, IN_FORCE, NOW, key, metric, public

TODAY = date(2026, 11, 25)
FOG = "spiffe://north.line-4/gateway/north"  # the gateway as its edges know it
KEYS = {"dpo": public("dpo"), "ot-owner": public("ot")}
METRICS = (
    "loss", "all", "seen", "unseen", "false_alarms", "rmse", "mae", "auroc", "detected", "late"
)  # fmt: skip


def started(preset: str) -> Policy:
    text = starter(
        preset,
        "mill-3",
        TODAY,
        fleet="line-4",
        fog="north",
        signers=KEYS,
        code=[CodeEntry(CODE, ("dpo",), date(2027, 1, 1))],
    )
    return parse(text, "policy.toml")


def asks(kind: str, to: str, **other: object) -> Request:
    fields = {
        "kind": kind,
        "to": to,
        "bytes": 1000,
        "now": NOW,
        "run": "r-1",
        "round": 1,
        "code": CODE,
        "sandbox": 3,
    }
    return Request(**{**fields, **other})  # type: ignore[arg-type]


def update(to: str, **other: object) -> Request:
    fields = {"samples": 1000, "params": 12_000, "dtype": "float32"}
    return asks("model_update", to, **{**fields, **other})


#: What a run in the clear sends, from an edge to its fog and from the fog to the cloud.
RUN = [
    each
    for to in (FOG, CLOUD)
    for each in (
        update(to),
        asks("metric", to, metrics=METRICS, values=60),
        asks("log", to, code=""),
        asks("presence", to, code=""),
    )
]


@pytest.mark.parametrize("preset", ["research", "company"])
@pytest.mark.parametrize("request_", RUN)
def test_an_ordinary_run_goes_through(preset: str, request_: Request) -> None:
    assert isinstance(decide(started(preset), IN_FORCE, request_), Allow)


def test_between_companies_updates_leave_the_site_masked_and_logs_stay() -> None:
    policy = started("companies")
    refused = [each for each in RUN if isinstance(decide(policy, IN_FORCE, each), Deny)]
    assert {(each.kind, each.to) for each in refused} == {("model_update", CLOUD), ("log", CLOUD)}
    masked = update(CLOUD, protection="secagg", cohort=3, organisations=3)
    assert isinstance(decide(policy, IN_FORCE, masked), Allow)
    for spoilt in ({"cohort": 2}, {"protection": "split"}, {"organisations": 2}, {"organisations": None}):
        assert isinstance(decide(policy, IN_FORCE, msgspec.structs.replace(masked, **spoilt)), Deny)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_starter_lets_nothing_to_a_stranger_and_no_other_kind(preset: str, kind: str) -> None:
    strong = {
        "protection": "secagg",
        "cohort": 9,
        "samples": 10**6,
        "params": 1,
        "dtype": "float32",
        "cell": 99,
    }
    policy = started(preset)
    assert isinstance(decide(policy, IN_FORCE, asks(kind, "spiffe://line-4/cloud/mallory", **strong)), Deny)
    if kind in ("raw", "prediction"):
        assert isinstance(decide(policy, IN_FORCE, asks(kind, CLOUD, **strong)), Deny)


@pytest.mark.parametrize(
    ("preset", "cell", "leaves"),
    [
        ("local", 1, True),
        ("research", 1, True),
        ("company", 10, True),
        ("company", 9, False),
        ("companies", 20, True),
        ("companies", 19, False),
    ],
)
def test_a_starter_lets_counts_over_enough_rows_leave(preset: str, cell: int, leaves: bool) -> None:
    counts = asks("statistic", CLOUD, protection="clear", cell=cell, code="")
    assert isinstance(decide(started(preset), IN_FORCE, counts), Allow) is leaves


@pytest.mark.parametrize("preset", PRESETS)
def test_code_that_no_officer_approved_gets_nothing_out(preset: str) -> None:
    verdict = decide(started(preset), IN_FORCE, update(FOG, code="ef" * 32))
    assert isinstance(verdict, Deny)
    assert verdict.reason == "code-ask"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_starter_without_signers_is_a_draft(preset: str) -> None:
    policy = parse(starter(preset, "mill-3", TODAY), "policy.toml")
    assert policy.signers.keys == {}
    assert policy.recipients["gateway"] == "spiffe://mill-3.fleet/gateway/mill-3"


def test_names_of_the_templates_do_not_stay_behind() -> None:
    for preset in PRESETS:
        text = starter(preset, "my-site", TODAY, fleet="my-fleet-2", fog="my-fog")
        assert "spiffe://my-fog.my-fleet-2/gateway/my-fog" in text
        assert "my-" not in starter(preset, "mill-3", TODAY)


@pytest.mark.parametrize(
    ("preset", "site", "other"),
    [
        ("factory", "mill-3", {}),
        ("company", 'x"\nserial = 2', {}),
        ("company", "mill-3", {"fleet": "Line 4"}),
        ("company", "mill-3", {"signers": {"dpo": "short"}}),
        ("company", "mill-3", {"signers": {'a"b': public("dpo")}}),
        ("company", "mill-3", {"signers": KEYS, "threshold": 3}),
    ],
)
def test_what_cannot_become_a_policy_is_refused(preset: str, site: str, other: dict) -> None:
    with pytest.raises(SettingsError):
        starter(preset, site, TODAY, **other)


def test_signatures_are_counted_and_those_of_an_older_text_dropped(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    text = starter("company", "mill-3", TODAY, signers=KEYS)
    file.write_text(text)
    assert sign_file(file, key("dpo")).signed_by == ("dpo",)
    assert sign_file(file, key("dpo")).signed_by == ("dpo",)
    assert sign_file(file, key("ot")).signed_by == ("dpo", "ot-owner")
    assert overview(file, NOW)["signed"] is True
    assert not sign_file(file, key("it")).named
    file.write_text("# a comment changes nothing\n" + text)
    assert overview(file, NOW)["signed"] is True
    file.write_text(text.replace("min_samples = 50", "min_samples = 1"))
    found = overview(file, NOW)
    assert (found["signed"], found["of_another_text"]) == (False, 3)
    done = sign_file(file, key("dpo"))
    assert (done.signed_by, done.dropped) == (("dpo",), 3)


def test_an_export_is_tried_on_a_policy(tmp_path: Path) -> None:
    export = tmp_path / "asked.jsonl"
    asked = [*RUN, metric(metrics=("shift_leader",)), metric(now=0.0), metric(bytes=2**40)]
    export.write_bytes(b"\n".join(map(msgspec.json.encode, asked)) + b"\n\n")
    found = simulate(started("company"), export)
    assert (found["allowed"], found["refused"], found["later"]) == (len(RUN) + 1, 2, 0)
    assert found["reasons"] == {"names": 1, "size": 1}
    assert [each["line"] for each in found["stopped"]] == [9, 11]


def test_quotas_count_what_the_export_was_allowed_before(tmp_path: Path) -> None:
    export = tmp_path / "asked.jsonl"
    large = msgspec.json.encode(asks("log", FOG, bytes=30 * 2**30, code=""))
    export.write_bytes(large + b"\n" + large)
    found = simulate(started("company"), export)
    assert (found["allowed"], found["later"]) == (1, 1)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"kind": "log"}', b'{"x": 1}', b'"' + b"a" * 70_000 + b'"'])
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: bytes) -> None:
    export = tmp_path / "asked.jsonl"
    export.write_bytes(msgspec.json.encode(RUN[0]) + b"\n" + line)
    with pytest.raises(SettingsError, match=r"asked\.jsonl line 2 is no request"):
        simulate(started("company"), export)
    with pytest.raises(SettingsError, match="cannot be read"):
        simulate(started("company"), tmp_path / "nothing")


def test_the_overview_is_plain_json(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(starter("companies", "mill-3", TODAY, signers=KEYS))
    found = json.loads(json.dumps(overview(file, NOW + 365 * 86_400)))
    assert found["problem"].startswith("the policy held to the end of")
    assert found["flows"][1]["rule"] == "flows[2] model_update"


class Ledger:
    """What a node with the company's starter really wrote down: two rounds, hellos, a refusal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        policy, clock = started("company"), SystemClock()
        allowed = CodeEntry("c" * 64, ("dpo",), date(2999, 1, 1))
        policy = msgspec.structs.replace(
            policy,
            code=Code(allow=(allowed,)),
            valid=Validity(date(2000, 1, 1), date(2999, 1, 1)),
        )
        self.policy = policy
        ledger = LedgerFile(self.folder, Signer("mill-3", "edge-1", new_key()), clock)
        flows = SiteFlows(ledger, lambda _now: Standing(policy, digest(policy)), clock, ())
        flows.approved(Work("r-1", "c" * 64, "training"), "")
        for number in (1, 2):
            flows.leave(*self.round(number, clock.now()))
        flows.leave(Leaving(Request("presence", FOG, 7, clock.now()), "ab" * 32))
        with pytest.raises(Refused):
            flows.leave(*self.round(3, clock.now(), "spiffe://elsewhere/cloud/cloud"))
        flows.close()
        ledger.close()

    def round(self, number: int, now: float, to: str = FOG) -> tuple[Leaving, ...]:
        plan = Plan(
            "r-1", number, 1, "train", "a" * 64, 8, 2, ("a", "b"), 1, 9.0, Grid(16, -9), 900, 4, 7, "c" * 64, 5,
            {"epochs": 5},
        )  # fmt: skip
        made = made_for(plan, "a", lambda _names: Hidden(2, 2), 3, 0.5 * number, "d" * 64)
        member = Member("edge-1", 600, metrics={"loss": 1.0})
        manifest = train.answer(plan, "e" * 64, member, f"{number}" * 64, 2)
        return contribution(manifest, to, now, made, lambda _names: Hidden(2, 2))

    def tried(self, ledger: Path, **rule: object) -> dict[str, Any]:
        """Under the policy with other conditions for updates."""
        flows = tuple(
            msgspec.structs.replace(each, **rule) if each.kind == "model_update" else each
            for each in self.policy.flows
        )
        return simulate(msgspec.structs.replace(self.policy, flows=flows), ledger)


def test_a_policy_is_tried_on_a_real_ledger_and_on_its_export(tmp_path: Path) -> None:
    made = Ledger(tmp_path)
    export = tmp_path / "export.jsonl"
    export_ledger(made.folder, str(export))
    for ledger in (made.folder, export):
        same = made.tried(ledger)
        assert (same["allowed"], same["refused"], same["later"]) == (5, 1, 0)
        assert same["reasons"] == {"recipient": 1}
        for rule, reasons in (
            ({"tensors": Tensors(max_norm=0.5)}, {"recipient": 1, "norm": 1}),
            ({"tensors": Tensors(schema="d" * 64, dtypes=("float32",), max_params=2)}, {"recipient": 1}),
            ({"tensors": Tensors(schema="e" * 64)}, {"schema": 2, "recipient": 1}),
            ({"min_local_steps": 6}, {"steps": 2, "recipient": 1}),
            ({"min_samples": 600, "min_cohort": 2, "min_organisations": 2}, {"recipient": 1}),
            ({"min_organisations": 3}, {"organisations": 2, "recipient": 1}),
            ({"min_cell": 1}, {"cell": 2, "recipient": 1}),
        ):
            assert made.tried(ledger, **rule)["reasons"] == reasons, rule
        stopped = made.tried(ledger, tensors=Tensors(max_norm=0.5))["stopped"]
        assert {each["why"].partition(",")[0] for each in stopped if each["reason"] == "norm"} == {
            "its length (L2) is 1.0"
        }
        assert all("record" in each for each in stopped)


def test_metrics_that_left_are_tried_by_their_names(tmp_path: Path) -> None:
    made = Ledger(tmp_path)
    flows = tuple(
        msgspec.structs.replace(each, names=("mae",)) if each.kind == "metric" else each
        for each in made.policy.flows
    )
    found = simulate(msgspec.structs.replace(made.policy, flows=flows), made.folder)
    assert found["reasons"] == {"names": 2, "recipient": 1}
