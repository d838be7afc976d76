"""The harnesses of `fuzz` with hypothesis: inputs that failed once, and good inputs damaged a little."""

from __future__ import annotations

import math
import struct
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from io import BytesIO

import msgspec
import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pyarrow import parquet

from fuzz.kit import UPDATE, attempt, harness, names
from fuzz.parsers import admit, events, frames, requests, sparkplug
from reuna.core.errors import BadMessage, Untrusted
from reuna.exchange.link import Call, Done, Fetch, HandOver, LinkServer
from reuna.trust import ledger
from tests.unit.trust.books import OWNER, book

#: A Parquet file in which one byte was changed.
HISTOGRAM = (
    "UEEVBBUAEgAAAQAAAP8AAAAAFQAAAAQBAQMCFQQZLDUAGAZzY2hlbWEVAgAVDCUWGANyYXcAFgQZHBkcJgAcFQwZNQAGEBkYA3Jh"
    "dxUAFgQWeBZ4JjYmCBw2ACgB/xgAEREAGSwVBBUAFQIAFQAVEBUCADwWAhkGGSYABAAAABZ4FgQmCBZ4ABkcGAxBUlJPVzpzY2hl"
    "bWEYoAEvLy8vLzNBQUFBQVFBQUFBQUFBS0FBd0FCZ0FGQUFnQUNnQUFBQUFCQkFBTUFBQUFDQUFJQUFBQUJBQUlBQUFBQkFBQUFB"
    "RUFBQUFVQUFBQUVBQVVBQWdBQmdBSEFBd0FBQUFRQUJBQUFBQUFBQUVFRUFBQUFCZ0FBQUFFQUFBQUFBQUFBQU1BQUFCeVlYY0FC"
    "QUFFQUFRQUFBQUFBQUFBABggcGFycXVldC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZHBwAAABJAQAAUEFSMQ=="
)


#: Another, with text.
DICTIONARY = (
    "UEFSMRUEFRAVEEwVAhUAEgAAAAAAAAAA+D8VABUSFRIsFQQVEBUGFQYcGAgAAAAAAAD4PxgIAAAAAAAA+D8WAigIAAAAAAAA+D8Y"
    "CAAAAAAAAPg/EREAAAACAAAAAwEBAgAVBBUKFQpMFQIVABIAAAEAAAB4FQAVEhUSLBUEFRAVBhUGHDYCKAF4GAF4EREAAAACAAAA"
    "AwEBAgIVBBk8NQAYBnNjaGVtYRUEABUKJQIYAWEAFQwlAhgBYiUATBwAAAAWBBkcGSwmABwVChk1AAYQGRgBYRUAFgQWvAEWvAEm"
    "NCYIHBgIAAAAAAAA+D8YCAAAAAAAAPg/FgIoCAAAAAAAAPg/GAgAAAAAAAD4PxERABksFQQVABUCABUAFRAVAgA8KQYZJgICAAAA"
    "JgAcFQwZNQAGEBkYAWIVABYEFnIWcibqASbEARw2AigBeBgBeBERABksFQQVABUCABUAFRAVAgA8FgIZBhkmAgIAAAAWrgIWBCYI"
    "Fq4CABkcGAxBUlJPVzpzY2hlbWEY4AEvLy8vLzZBQUFBQVFBQUFBQUFBS0FBd0FCZ0FGQUFnQUNnQUFBQUFCQkFBTUFBQUFDQUFJ"
    "QUFBQUJBQUlBQUFBQkFBQUFBSUFBQUJBQUFBQUJBQUFBTmovLy84QUFBRUZFQUFBQUJnQUFBQUVBQUFBQUFBQUFBRUFBQUJpQUFB"
    "QUJBQUVBQVFBQUFBUUFCUUFDQUFHQUFjQURBQUFBQkFBRUFBQUFBQUFBUU1RQUFBQUdBQUFBQVFBQUFBQUFBQUFBUUFBQUdFQUJn"
    "QUlBQVlBQmdBQUFBQUFBZ0FBQUFBQQAYIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4xGSwcAAAcAAAA/wEAAFBBUjE="
)


def found() -> Iterator[tuple[str, str, bytes]]:
    """Target, what it was, and an input on which its check failed before it was repaired."""
    yield "admit", "a sum of the widest integers could not be passed on", list(admit.seeds())[1]
    yield "audit_trails", "a line with a good hash and no number", b'\1{"who": "anna"}'
    yield "csv_tables", "a number beyond float32 became infinite", b"a\n2e300\n"
    yield "csv_tables", "a number beyond int64 became another one", b"a\n1e19\n"
    for number, seed in enumerate(list(events.seeds())[1:]):
        one = struct.pack(">d", 1.0)
        yield "events", f"a time that is no number ({number})", seed.replace(one, struct.pack(">d", math.nan))
    yield "frames", "text that is not UTF-8 ended the egress", b"\0" + framed(call_with(b"\xff\xff"))
    yield (
        "frames",
        "the same at the place",
        b"\1" + framed(b"\x83\xa4type\xa4Done\xa6number\x01\xa4path\xa2\xff\xff"),
    )
    yield "frames", "a body that is not there left the call without an answer", b"\0" + handed("no-such-file")
    yield "frames", "a path with a zero byte too", b"\0" + handed("no\0file")
    yield "frames", "a refusal with a reason could not be told", b"\1" + framed(packed(Done(1, code="R308")))
    problem = b"\x82\xa6reason\xa1\xff\xa7message\xa0"
    head = f"HTTP/1.1 404 No\r\nContent-Length: {len(problem)}\r\n\r\n".encode()
    yield "freight_answers", "a parent's text that is not UTF-8", b"\0" + head + problem
    yield "ledgers", "an owner's name that is not UTF-8", b"\1" + begun_by(b"\xff")
    yield "notes", "a note nested deeper than Python reads", b"\2" + b"[" * 5_000
    yield "notes", "a record beyond every number", b'\2{"seq": Infinity, "digest": ""}'
    yield "parquet_tables", "text that is not UTF-8", parquet_with(b"\xff")
    yield "parquet_tables", "a histogram of another size than its levels", b64decode(HISTOGRAM)
    yield "parquet_tables", "a text that its dictionary does not have", b64decode(DICTIONARY)
    request = next(iter(requests.seeds()))
    curve = bytes.fromhex("2a8648ce3d030107")
    yield "requests", "a key on a curve nobody knows", request.replace(curve, curve[:-1] + b"\x7f")
    ended = list(requests.seeds())[1].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x42", 1)
    yield "requests", "a certificate of version 66", ended
    yield "requests", "a refusal nested deeper than Python reads", b"\4" + b"[" * 5_000
    yield "rosters", "text that is not UTF-8", b'{"":"","\x80"'
    yield "settings", "a whole number larger than any float", b"[round]\nquorum = 1" + b"0" * 400
    yield "settings", "a hexadecimal number too long to be written", b"[run]\nseed = 0x" + b"f" * 4_000
    yield "settings", "a decimal number too long to be read", b"[run]\nseed = " + b"9" * 5_000
    yield "settings", "lists nested deeper than Python reads", b"x = " + b"[" * 5_000
    yield "policies", "a hexadecimal number too long to be written", b"serial = 0x" + b"f" * 4_000
    born = next(iter(sparkplug.seeds()))
    yield "sparkplug", "a property whose name is not UTF-8", born.replace(b"Quality", b"Qual\x9aty")
    yield "tokens", "an identity with half an address", b"\2spiffe://[::1/edge/press-1"
    yield "worker", "a worker's text that is not UTF-8", b"\x08\0\0\0\x81\xa4code\xa1\xff"


def packed(message: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(message)


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def call_with(text: bytes) -> bytes:
    return packed(Call(1, Fetch("??", 10))).replace(b"??", text)


def handed(path: str) -> bytes:
    return framed(packed(Call(1, HandOver(b"plan", UPDATE, path, b""))))


def begun_by(name: bytes) -> bytes:
    """The first record of a ledger whose owner's site has that name."""
    record = ledger.read_record(book(0).records[0])
    statement = packed(replace(OWNER, site="?")).replace(b"\xa1?", b"\xa1" + name)
    return packed(replace(record, entry=replace(record.entry, statement=statement)))


def parquet_with(text: bytes) -> bytes:
    raw = arrow.array([text], arrow.binary())
    out = BytesIO()
    parquet.write_table(arrow.table({"a": arrow.Array.from_buffers(arrow.string(), 1, raw.buffers())}), out)
    return out.getvalue()


@pytest.mark.parametrize(("target", "data"), [pytest.param(t, d, id=f"{t}: {why}") for t, why, d in found()])
def test_what_failed_once_is_refused_in_our_own_words(target: str, data: bytes) -> None:
    harness(target).check(data)


@cache
def seeds(target: str) -> list[bytes]:
    return list(harness(target).seeds())


@pytest.mark.parametrize("target", names())
def test_a_harness_takes_its_own_seeds(target: str) -> None:
    assert seeds(target)
    for seed in [*seeds(target), b""]:
        assert len(seed) < 20_000
        harness(target).check(seed)


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A seed with up to four places where bytes were put in, taken out or replaced."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8))

    def carry_out(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for where, gone, new in edits:
            at = int(where * len(seed))
            seed = seed[:at] + new + seed[at + gone :]
        return seed

    return st.builds(carry_out, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=4))


@pytest.mark.parametrize("target", names())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_damage_breaks_a_parser(target: str, data: st.DataObject) -> None:
    harness(target).check(data.draw(st.binary(max_size=300) | damaged(seeds(target))))


# --- the harness itself -----------------------------------------------------------------------------


def test_an_error_that_is_not_named_is_a_find() -> None:
    def raises(error: Exception) -> None:
        raise error

    assert attempt(lambda: raises(BadMessage("no")), BadMessage) is None
    with pytest.raises(UnicodeDecodeError):
        attempt(lambda: b"\xff".decode(), BadMessage)
    with pytest.raises(AssertionError):
        attempt(lambda: raises(BadMessage("x" * 3_000)), BadMessage)
    with pytest.raises(AssertionError):
        attempt(lambda: raises(Untrusted("no such reason", "x")), Untrusted)
    with pytest.raises(UnicodeEncodeError):
        attempt(lambda: raises(BadMessage("\udcff")), BadMessage)


def test_a_call_without_an_answer_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(LinkServer):
        async def _serve(self, call: Call) -> None:
            """Says nothing."""

    frames.check(frames.seeds().__next__())
    monkeypatch.setattr(frames, "LinkServer", Silent)
    with pytest.raises(AssertionError):
        frames.check(frames.seeds().__next__())
