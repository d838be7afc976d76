"""Published bytes: messages keep the encoding of the protocol they began in, and old bytes stay readable.

Regenerate on purpose with ``python -m tests.golden.test_wire`` after raising the protocol number.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage
from reuna.core.readiness import Module, Needs, as_settings
from reuna.core.records import (
    Contribution,
    Encoding,
    Event,
    Grid,
    Hello,
    Member,
    News,
    Plan,
    Receipt,
    RunSpec,
    Said,
    ShownHead,
)
from reuna.core.roster import Roster, RosterAsked, Stand
from reuna.core.second import Doubtful, Opinion, Opinions, Window
from reuna.wire import LIMITS, OLDEST, VERSION, decode, digest_bytes, encode
from reuna.wire.codec import FIRST

GOLDEN = Path(__file__).with_name("wire-1.json")
GRID = Grid(16, -10)
MESSAGES: dict[str, msgspec.Struct] = {
    "plan": Plan(
        "r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1", "e2"), 2, 30.0, GRID, 100, 4, 7, "cd" * 32, 5,
        {"rate": 0.5, "epochs": 2, "fast": True, "name": "x"}, b"inline",
    ),
    "update": Contribution(
        "r-1", 2, 1, "e1", "ef" * 32, "update", 10, 2, 9, "01" * 32, 20,
        (Member("e1", 9, "01" * 32, {"loss": 0.25}, 1),),
    ),
    "report": Contribution(
        "r-1", 2, 1, "e2", "ef" * 32, "report", 0, 0, 0, "", 0, (Member("e2", absent="R103 no rows"),)
    ),
    "partial": Contribution(
        "r-1", 2, 1, "n1", "ef" * 32, "partial", 10, 8, 9, "23" * 32, 80,
        (Member("e1", 9, "01" * 32, {"loss": 0.25}, 1, size=20), Member("e2", absent="R103 no rows")),
    ),
    "receipt": Receipt("r-1", 2, 1, "e1", "01" * 32),
    "event": Event("e1", "b0", 3, 1.5, "sat out", "r-1", 2, {"reason": "no rows"}),
    "hello": Hello("n1", "b0", "0.1.0", ("e1", "e2")),
    "updates": Contribution(
        "r-1", 2, 1, "n1", "ef" * 32, "updates", 10, 4, 9, "23" * 32, 80,
        (Member("e1", 4, "45" * 32, size=40), Member("e2", 5, "56" * 32, size=40)),
    ),
    "plan for single updates": Plan(
        "r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1", "e2"), 2, 60.0, Grid(32, -24), 65536, 2, 7, "cd" * 32, 5,
        {"byzantine": 1}, combine="singly",
    ),
    "check": Plan(
        "c-1", 1, 1, "check", "ab" * 32, 72, 10, ("e1", "e2"), 2, 30.0, GRID, 100, 4, 7, "cd" * 32, 5,
        as_settings(Needs((Module("torch", "torch", "2.13.0"),), ("all",), "ef" * 32)),
    ),
    "ready": Contribution(
        "c-1", 1, 1, "e1", "ef" * 32, "report", 0, 0, 0, "", 0,
        (Member("e1", metrics={"memory_free_mib": 9.5}, said=(Said("code"), Said("libraries", "no", "torch"))),),
    ),
    "news": News(7),
    "hello of a fog": Hello("n1", "b0", "0.3.0", protocol=3, oldest=2, every_s=60.0, below=Stand("ab12", 7, 2**62)),
    "roster": Roster(Stand("ab12", 7, 2**62), ("e1", "e2"), ("e3",)),
    "page of a roster": Roster(Stand("ab12", 8, 2**61), ("e1",), page=1, pages=2),
    "roster asked": RosterAsked(6),
    "hello of 2": Hello("n1", "b0", "0.2.0", ("e1", "e2"), protocol=2, oldest=1),
    "plan of 3": Plan(
        "r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1", "e2"), 2, 30.0, GRID, 100, 4, 7, "cd" * 32, 5,
        encoding=Encoding(packed=True, stochastic=True, feedback=True, keep=0.25, follow=True),
        carried={"e1": 1}, base="45" * 32, step="67" * 32, step_size=40,
    ),
    "plan whose bodies go by the line": Plan(
        "r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1", "e2"), 2, 30.0, GRID, 100, 4, 7, "cd" * 32, 5,
        encoding=Encoding(by_line=True),
    ),
    "packed update": Contribution(
        "r-1", 2, 1, "e1", "ef" * 32, "update", 10, 2, 9, "01" * 32, 12, (Member("e1", 9, "01" * 32),), packed=True
    ),
    "spec of 3": RunSpec(
        "r-1", "p", "fault-classification", "all", 3, "fedavg", {"n1": ("e1",)}, "ab" * 32, 72, 10, "cd" * 32, 5,
        encoding=Encoding(),
    ),
    "plan for fogs under fogs": Plan(
        "r-1", 2, 1, "train", "ab" * 32, 72, 10, ("e1", "e2"), 2, 30.0, GRID, 100, 4, 7, "cd" * 32, 5,
        tree={"n1": ("e2", "n2"), "n2": ("e1",)},
    ),
    "spec of fogs under fogs": RunSpec(
        "r-1", "p", "fault-classification", "all", 3, "fedavg", {"n1": ("e2",), "n2": ("e1",)}, "ab" * 32, 72, 10,
        "cd" * 32, 5, above={"n2": "n1"},
    ),
    "hello of a fog of fogs": Hello("n1", "b0", "0.2.0", ("e2", "n2"), 3, 2, 5.0, fogs={"n2": ("e1",)}),
    "shown": ShownHead(b"head", b"k" * 32, (b"leaf", b"site"), b"proof"),
    "doubtful": Doubtful(
        "pumps-big", 60.0, 600_000_000, {"flow_m3_h": "m3/h"},
        (Window(1_800_000_000_000_000_000, 1, 2, {"flow_m3_h": (bytes(16), b"\x01\x00")}),), 2.0,
    ),
    "opinions": Opinions(3, "ab" * 32, (Opinion(True, False, 1.0, (0.25, 0.75), ""),)),
    "spec": RunSpec(
        "r-1", "p", "fault-classification", "all", 3, "fedavg", {"n1": ("e1",)}, "ab" * 32, 72, 10, "cd" * 32, 5
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_its_published_bytes_and_old_bytes_are_readable(name: str) -> None:
    golden = bytes.fromhex(json.loads(GOLDEN.read_text())[name])
    assert encode(MESSAGES[name]) == golden
    assert decode(type(MESSAGES[name]), golden) == MESSAGES[name]


def test_a_blob_has_its_published_digest() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert digest_bytes(bytes(range(256)) * 1000) == golden["digest of 256000 bytes"]


@given(data=st.binary(max_size=200), kind=st.sampled_from(list(LIMITS)))
def test_no_bytes_do_anything_but_decode_or_be_refused(data: bytes, kind: type[msgspec.Struct]) -> None:
    try:
        decode(kind, data)
    except BadMessage:
        return


@given(name=st.sampled_from(list(MESSAGES)), cut=st.integers(0, 400), flip=st.integers(0, 255))
def test_damaged_messages_are_refused_or_mean_something_else(name: str, cut: int, flip: int) -> None:
    good = encode(MESSAGES[name])
    damaged = bytearray(good)
    damaged[cut % len(good)] ^= flip
    for data in (good[: cut % len(good)], bytes(damaged)):
        try:
            decode(type(MESSAGES[name]), data)
        except BadMessage:
            continue


def test_too_many_bytes_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(BadMessage, match="over its limit"):
        decode(Receipt, bytes([1, 3]) + bytes(5000))


def test_another_version_or_type_is_refused() -> None:
    data = encode(MESSAGES["hello"])
    for version in (FIRST - 1, VERSION + 1):
        with pytest.raises(BadMessage, match="protocol 1 to 3"):
            decode(Hello, bytes([version]) + data[1:])
    for version in (FIRST, OLDEST, VERSION):
        assert decode(Hello, bytes([version]) + data[1:]) == MESSAGES["hello"]
    with pytest.raises(BadMessage, match="got a message of type 5"):
        decode(Event, data)


def golden_text() -> str:
    values = {name: encode(message).hex() for name, message in MESSAGES.items()}
    values["digest of 256000 bytes"] = digest_bytes(bytes(range(256)) * 1000)
    return json.dumps(values, indent=1) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_text())
