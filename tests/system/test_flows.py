"""The drill, short, and its parts: what is on the wire is told apart, what is planted is found."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from drills.flows import held
from drills.recording import canaries
from drills.recording.wire import AGAIN, BLOCK, UnreadableError, payloads

ROWS = np.array([[1.408211537, 51.22718391], [1.397120944, 50.91827364], [1.401112233, 51.08172635]])
WANTED = canaries.forms(["canary-0123456789"], ROWS)
GOOD = {
    "payload_bytes_on_wire": 9,
    "difference": 0,
    "canary_hits": 0,
    "canaries_missed_by_search": 0,
    "nodes": 6,
    "nodes_countersigned": 6,
    "raised_in_own_log": 1,
}


@pytest.mark.system
@pytest.mark.timeout(120)
def test_the_wire_and_the_ledgers_agree_and_nothing_planted_is_found() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drills.flows", "--rounds", "2", "--json"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["payload_bytes_on_wire"] == result["payload_bytes_in_ledger"] > 10_000
    assert (result["difference"], result["canary_hits"], result["nodes_countersigned"]) == (0, 0, 6)
    assert result["raised_in_own_log"] > 0, "the failing learner's words never were"


@pytest.mark.parametrize("name", ["difference", "canary_hits", "canaries_missed_by_search"])
def test_one_byte_one_canary_or_a_blind_search_fails_the_drill(name: str) -> None:
    assert held(GOOD)
    assert not held({**GOOD, name: 1})
    assert not held({**GOOD, "payload_bytes_on_wire": 0})
    assert not held({**GOOD, "nodes_countersigned": 5})
    assert not held({**GOOD, "raised_in_own_log": 0})


def test_a_contribution_is_its_manifest_and_its_blocks_without_their_hashes() -> None:
    body = b"m" * 7 + b"h" * 32 + b"b" * BLOCK + b"h" * 32 + b"b" * 5
    request = b"PUT /v1/contributions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    put = request % (len(body) + 4) + (7).to_bytes(4, "little") + body
    ask = b"GET /v1/blobs/0 HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = set[bytes]()
    assert payloads("http", ask + put + ask, sent) == Counter(metric=7, model_update=BLOCK + 5)
    assert payloads("http", put, sent) == Counter({AGAIN: 7 + BLOCK + 5}), "the same bytes, after a cut line"


def test_messages_count_without_their_headers_and_what_is_not_known_is_not_hidden() -> None:
    said = b"CONNECT {}\r\nSUB plan.a 1\r\nPUB hello.a 3\r\nabc\r\nHPUB event.a _INBOX.1 5 9\r\n12345abcd\r\nPING\r\n"
    assert payloads("nats", said, set()) == Counter(presence=3, log=4)
    leaf = b"LS+ plan.f\r\nLMSG secrets.f + reply queue 4\r\nabcd\r\nHMSG event.f r 2 3\r\n12x\r\n"
    assert payloads("leaf", leaf, set()) == Counter(unknown=4, log=1)
    post = b"POST /elsewhere HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    assert payloads("http", post, set()) == Counter(unknown=3)


def test_events_that_only_count_are_statistics_and_all_others_may_quote_data() -> None:
    for what, kind in (("contract", "statistic"), ("data", "statistic"), ("sat out", "log"), (7, "log")):
        body = b"\1\4" + msgspec.msgpack.encode({"node": "a", "what": what})
        assert payloads("nats", b"PUB event.a %d\r\n%b\r\n" % (len(body), body), set()) == Counter(
            {kind: len(body)}
        )
    body = b"\1\4" + msgspec.msgpack.encode(["contract"])
    assert payloads("nats", b"PUB event.a %d\r\n%b\r\n" % (len(body), body), set()) == Counter(log=len(body))


@pytest.mark.parametrize("said", [b"HELO\r\n", b"PUB a 9\r\nabc\r\n", b"PUB a"])
def test_a_line_that_is_none_of_the_protocol_is_an_error(said: bytes) -> None:
    with pytest.raises(UnreadableError):
        payloads("nats", said, set())


def test_the_search_finds_each_form_and_nothing_where_there_is_nothing() -> None:
    assert canaries.controls(WANTED) == 0
    assert canaries.hits(np.random.default_rng(1).bytes(2_000_000), WANTED) == []


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("text", b"..canary-0123456789.."),
        ("base64", base64.b64encode(b"x canary-0123456789 y")),
        ("float32", ROWS.astype("<f4").tobytes()),
        ("float32", ROWS.T.astype(">f4").tobytes()),
        ("float64", ROWS.tobytes()),
        ("hex, compressed", zlib.compress(b"..." + b"canary-0123456789".hex().encode())),
    ],
)
def test_what_was_planted_is_found_as_others_would_write_it(form: str, data: bytes) -> None:
    assert form in canaries.hits(b"before " + data + b" after", WANTED)


def test_a_search_that_is_blind_for_a_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "unpacked", lambda data: iter(()))
    assert canaries.controls(WANTED) > 0
