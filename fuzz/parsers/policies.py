"""`reuna.trust`: the text of a policy, of its signatures, and a record for `reuna policy simulate`."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.kit import attempt
from reuna.core.errors import SettingsError
from reuna.trust.explain import explain
from reuna.trust.policy import Policy, canonical
from reuna.trust.policy_sign import parse_signatures, write_signatures
from reuna.trust.policy_text import parse
from reuna.trust.rehearse import asked, rehearse

RECORD = (
    b'{"kind": "metric", "to": "spiffe://line-4/cloud/cloud", "bytes": 90, "now": 1795600000,'
    b' "metrics": ["loss"], "values": 1, "samples": 3000, "cohort": 5}'
)
EXPORTED = b"""{"seq": 7, "digest": "ab", "previous": "cd", "time_ms": 1795600000000, "kind": "intent",
 "flow": "metric", "to": "spiffe://line-4/cloud/cloud", "payload_bytes": 90, "decision": "allow"}
{"seq": 8, "digest": "ef", "previous": "ab", "time_ms": 1795600000001, "kind": "outcome", "intent": 7}
""".replace(b"\n ", b" ")
TEXT = """\
format = "reuna/policy/v1"
site = "mill-3"
serial = 17
kill_switch = "/etc/reuna/STOP"
[valid]
from = 2026-11-01
until = 2027-02-01
[signers]
threshold = 1
keys = { dpo = "KEY" }
[recipients]
cloud = "spiffe://line-4/cloud/cloud"
[[flows]]
kind = "metric"
to = ["cloud"]
names = ["loss"]
[limits]
bytes_per_day = "50 MiB"
windows = ["Mon-Sun 22:00-05:00"]
""".replace("KEY", "ab" * 32)


def seeds() -> Iterator[bytes]:
    yield TEXT.encode()
    yield f'[[signature]]\nkey = "{"ab" * 32}"\nsignature = "{"cd" * 64}"\n'.encode()
    yield RECORD
    yield EXPORTED
    yield TEXT.replace("17", "0x" + "f" * 4_000).encode()
    yield TEXT.replace("17", str(2**63)).encode()
    yield TEXT.replace("threshold = 1", "threshold = 0x" + "f" * 4_000).encode()


def check(data: bytes) -> None:
    policy = _policy()
    attempt(lambda: list(rehearse(policy, asked(data.splitlines(), "record")[1])), SettingsError)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    signatures = attempt(lambda: parse_signatures(text, "policy.sig"), SettingsError)
    if signatures is not None:
        assert parse_signatures(write_signatures(signatures), "policy.sig") == signatures
    found = attempt(lambda: parse(text, "policy.toml"), SettingsError)
    if found is not None:
        canonical(found)
        "\n".join(explain(found)).encode()


def _policy() -> Policy:
    return parse(TEXT, "policy.toml")
