"""A policy file: everything that is wrong in it is said at once, with its line."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.trust.policy import MAX_POLICY, Budget, CodeEntry, Tensors, Window
from reuna.trust.policy_keys import is_identity
from reuna.trust.policy_text import lines_of, parse

WHOLE = """\
format = "reuna/policy/v1"
site = "mill-3"
serial = 17
valid = { from = 2026-11-01, until = 2027-02-01 }
kill_switch = "/etc/reuna/STOP"

[signers]
threshold = 2

[signers.keys]
dpo = "1111111111111111111111111111111111111111111111111111111111111111"
"ot-owner" = "2222222222222222222222222222222222222222222222222222222222222222"

[recipients]
fog = "spiffe://line-4/gateway/north"

[sources.press]
columns = ["rms", "temp"]
purpose = ["maintenance"]
row_unit = "asset-day"

[[flows]]
kind = "model_update"
to = ["fog"]
protection = "secagg"
min_cohort = 5
tensors = { dtypes = ["float32"], max_norm = 1 }
max_rounds_per_day = 24

[flows.dp]
unit = "asset-day"
max_epsilon_total = 4.0
max_epsilon_round = 0.2
delta = 1e-6

[[flows]]
kind = "metric"
to = ["fog"]
names = ["loss"]

[code]
new_code = "ask"

[[code.allow]]
digest = "3333333333333333333333333333333333333333333333333333333333333333"
approved_by = ["dpo"]
until = 2027-01-15

[limits]
bytes_per_day = "50 MiB"
windows = ["Mon-Sun 22:00-05:00", "Sat 00:00-24:00", "Fri-Mon 06:00-07:00"]

[ledger]
heads_to = ["syslog+tcp://siem:601", "syslog://siem:514", "file:/var/log/heads"]
"""


def test_a_whole_file_becomes_records() -> None:
    policy = parse(WHOLE, "policy.toml")
    assert (policy.site, policy.serial, policy.valid.last) == ("mill-3", 17, date(2027, 2, 1))
    assert policy.signers.keys["ot-owner"] == "2" * 64
    assert policy.flows[0].tensors == Tensors(dtypes=("float32",), max_norm=1.0)
    assert policy.flows[0].dp == Budget("asset-day", 4.0, 0.2, 1e-6)
    assert policy.flows[1].names == ("loss",)
    assert policy.code.allow == (CodeEntry("3" * 64, ("dpo",), date(2027, 1, 15)),)
    assert policy.limits.bytes_per_day == 50 * 2**20
    assert policy.limits.windows == (
        Window((0, 1, 2, 3, 4, 5, 6), 1320, 300),
        Window((5,), 0, 1440),
        Window((0, 4, 5, 6), 360, 420),
    )


#: What stands in the file, what stands there instead, what is said.
MISTAKES = [
    ("serial = 17", "serial = true", "line 3: serial is True, expected a whole number"),
    ("serial = 17", "serial = 0", "line 3: serial is 0, must be a whole number from 1 on"),
    ("serial = 17", "", "serial is missing"),
    ('site = "mill-3"', 'site = "Mill 3"', "line 2: site is 'Mill 3', must be a name"),
    ("/v1", "/v9", "line 1: format is 'reuna/policy/v9', must be one of reuna/policy/v1"),
    ("until = 2027-02-01", "until = 2026-02-01", "line 4: valid.until is before valid.from"),
    ("until = 2027-02-01", 'until = "2027-02-01"', "line 4: valid.until is '2027-02-01', expected a date"),
    ("from = 2026-11-01", "from = 2026-11-01T10:00:00Z", "line 4: valid.from is"),
    ("threshold = 2", "threshold = 3", "line 8: signers.threshold is 3, but there are 2 keys"),
    ("threshold = 2", "threshold = 0", "line 8: signers.threshold is 0"),
    ("2" * 64, "1" * 64, "line 12: dpo and ot-owner have the same key"),
    ("2" * 64, "2" * 63, "line 12: signers.keys.ot-owner is"),
    ('"spiffe://line-4/gateway/north"', '"fog-a"', "line 15: recipients.fog is 'fog-a', must be spiffe://"),
    ('columns = ["rms", "temp"]', "columns = []", "line 18: sources.press.columns must name at least 1 column"),
    ('columns = ["rms", "temp"]', 'columns = ["a", "a"]', "names a column twice"),
    ('kind = "model_update"', 'kind = "model"', "line 23: flows[1].kind is 'model', must be one of"),
    ('to = ["fog"]\nprotection', 'to = ["fgo"]\nprotection', "line 24: flows[1].to names 'fgo', which is no recipient"),
    ('protection = "secagg"', "", "line 22: flows[1].protection is missing: a rule for model_update must"),
    ('names = ["loss"]', "", "flows[2].names is missing: a rule for metric must state it"),
    ('names = ["loss"]', 'names = ["loss"]\ndp = {}', "flows[2].dp means nothing for metric"),
    ("min_cohort = 5", "min_cohrot = 5", "line 26: flows[1].min_cohrot is no key of a policy; did you mean flows[1].min_cohort?"),
    ("min_cohort = 5", "min_cohort = -5", "line 26: flows[1].min_cohort is -5"),
    ("max_norm = 1", "max_norm = nan", "line 27: flows[1].tensors.max_norm is nan, expected a number"),
    ("max_norm = 1", "max_norm = inf", "flows[1].tensors.max_norm is inf"),
    ("max_norm = 1", "max_nrom = 1", "line 27: flows[1].tensors.max_nrom is no key"),
    ("delta = 1e-6", "delta = 1", "line 34: flows[1].dp.delta is 1, must be between 0 and 1"),
    ("delta = 1e-6", "", "line 30: flows[1].dp.delta is missing"),
    ('kind = "metric"', 'kind = "raw"', "flows[2].to must be empty: rows of data never leave"),
    ('approved_by = ["dpo"]', 'approved_by = ["ceo"]', "line 46: code.allow[1].approved_by names 'ceo', which is no signer"),
    ('approved_by = ["dpo"]', "approved_by = []", "line 46: code.allow[1].approved_by must name at least 1 signer"),
    ('new_code = "ask"', 'new_code = "auto"', "line 42: code.new_code is 'auto', must be one of ask, deny"),
    ('"50 MiB"', '"50 furlongs"', "line 50: limits.bytes_per_day is '50 furlongs', expected bytes"),
    ('"50 MiB"', "-1", "line 50: limits.bytes_per_day is -1"),
    ("Sat 00:00-24:00", "Sat 00:00-25:00", "line 51: limits.windows is"),
    ("Sat 00:00-24:00", "Sat 06:00-06:00", "line 51: limits.windows is"),
    ("Sat 00:00-24:00", "weekends", "line 51: limits.windows is"),
    ('"syslog+tcp', '"cloud", "syslog+tcp', "line 54: ledger.heads_to"),
    ('kill_switch = "/etc/reuna/STOP"', 'kill_switch = "STOP"', "line 5: kill_switch is 'STOP', must be a full path"),
    ("[signers]\nthreshold = 2", "[signers]\nthreshold = 2\nfoo = 1", "line 9: signers.foo is no key"),
    ("[limits]", "[limitz]", "limitz is no key of a policy; did you mean limits?"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_line(right: str, wrong: str, said: str) -> None:
    assert WHOLE.count(right) == 1, right
    with pytest.raises(SettingsError) as caught:
        parse(WHOLE.replace(right, wrong), "policy.toml")
    assert said in caught.value.message


def test_all_mistakes_are_said_together_in_the_order_of_the_file() -> None:
    text = WHOLE.replace("serial = 17", "serial = 0").replace("threshold = 2", "threshold = 9")
    with pytest.raises(SettingsError) as caught:
        parse(text.replace("delta = 1e-6", "delta = 7"), "policy.toml")
    assert [line.split(":")[0] for line in caught.value.message.splitlines()] == [
        "policy.toml line 3",
        "policy.toml line 8",
        "policy.toml line 34",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "serial = ",
        "a = " + "9" * 5000,
        "a = " + "[" * 20_000,
        "a" * (MAX_POLICY + 1),
        'flows = "none"',
        "flows = [1]",
        "signers = []",
        "recipients = 7",
        "recipients = { '../x' = 'y' }",
        "code = { allow = {} }",
        '"\\u0000\\u001b[31m" = 1',
        "valid = 2026-11-01",
        "flows = [" + "{}," * 2000 + "]",
    ],
)
def test_a_file_that_is_no_policy_is_one_error(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, "policy.toml")
    assert caught.value.next_step.endswith(".")
    assert "\x1b" not in caught.value.message


@given(st.integers(0, len(WHOLE)), st.text(max_size=6), st.integers(0, 30))
def test_a_damaged_file_is_read_or_refused_and_never_crashes(start: int, put: str, gone: int) -> None:
    with contextlib.suppress(SettingsError):
        parse(WHOLE[:start] + put + WHOLE[start + gone :], "policy.toml")


short = st.text('aß_-.* \\"\n', max_size=5)
plain = st.recursive(
    st.booleans() | st.integers() | st.floats() | short | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=6,
)


def paths(tree: object, above: tuple = ()) -> Iterator[tuple]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from paths(inner, (*above, key))


@given(st.data())
def test_any_value_in_any_place_is_taken_or_refused(data: st.DataObject) -> None:
    tree = tomllib.loads(WHOLE)
    *above, last = data.draw(st.sampled_from(sorted(paths(tree), key=str)))
    place = tree
    for part in above:
        place = place[part]
    place[last] = data.draw(plain)
    text = "\n".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in tree.items())
    with contextlib.suppress(SettingsError):
        parse(text, "policy.toml")


def toml(value: object) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool) else str(value)


def test_a_draft_without_signers_can_be_read() -> None:
    start, end = WHOLE.index("dpo ="), WHOLE.index("[recipients]")
    draft = WHOLE[:start] + WHOLE[end:]
    draft = draft[: draft.index("[[code.allow]]")] + draft[draft.index("[limits]") :]
    assert parse(draft, "policy.toml").signers.keys == {}


def test_lines_are_found_also_in_later_entries_of_a_list() -> None:
    found = lines_of(WHOLE)
    assert found[("flows", 0, "dp", "delta")] == 34
    assert found[("flows", 1, "names")] == 39
    assert found[("code", "allow", 0, "until")] == 47


@pytest.mark.parametrize(
    ("identity", "good"),
    [
        ("spiffe://line-4/cloud/cloud", True),
        ("spiffe://north.line-4/gateway/north", True),
        ("spiffe://a.b.line-4/gateway/north", False),
        ("spiffe://.line-4/gateway/north", False),
        ("spiffe://line-4/cloud", False),
        ("spiffe://line-4/cloud/cloud/x", False),
        ("https://line-4/cloud/cloud", False),
        ("spiffe://line-4/cloud/*", False),
    ],
)
def test_an_identity_is_that_of_a_certificate(identity: str, good: bool) -> None:
    assert is_identity(identity) is good


@pytest.mark.parametrize(
    "address", ["https://alarms.plant/in", "file:/answers", "opc.tcp://press:4840#ns=2;s=A"]
)
def test_a_recipient_may_be_the_address_of_a_sink(address: str) -> None:
    said = parse(WHOLE.replace('"spiffe://line-4/gateway/north"', f'"{address}"'), "policy.toml")
    assert said.recipients["fog"] == address


@pytest.mark.parametrize(
    "address", ["ftp://alarms.plant/", "https://alarms.plant/my answers", "https://" + "a" * 200]
)
def test_what_is_neither_an_identity_nor_an_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="or a sink's address"):
        parse(WHOLE.replace('"spiffe://line-4/gateway/north"', f'"{address}"'), "policy.toml")
