"""Verifies a Reuna ledger without Reuna: Python 3.11 or newer and the package `cryptography`.

    python verify.py FOLDER [--keys FILE] [--heads FILE]

FOLDER holds the files NNNNNNNNNNNN.ledger. FILE of --keys has a line "node HEX" or "cloud HEX" for
each public Ed25519 key; without it the node's key is the one in the first record. FILE of --heads is
any text with heads or countersignatures in hexadecimal that were kept elsewhere; FOLDER/countersigned is
looked at as well. Ends with 0, or with 1 and the number of the first wrong record.
"""

import hashlib
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEAD_EVERY, MAX_RECORD = 64, 16384
STATEMENT = re.compile(r"93(?:a468656164|b0636f756e7465727369676e6174757265)(?:[0-9a-f]{2})+")
NUMBERS = {0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}  # msgpack tags
SIZES = {0xC4: ">B", 0xC5: ">H", 0xD9: ">B", 0xDA: ">H", 0xDE: ">H"}  # of bytes, of text, of a map
BAD = (ValueError, IndexError, TypeError, RecursionError, struct.error)  # what foreign bytes raise
SIGNED, SEEN, HEAD = (str, bytes, bytes), (bytes, bytes, int), (str, str, str, int, bytes, int)


class Wrong(Exception):
    """What is wrong: the record's number, a word, more."""


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """One msgpack value of the kinds a ledger uses, and where it ends."""
    tag, at = data[at], at + 1
    found: Any = tag & (15 if tag < 0xA0 else 31)
    if form := NUMBERS.get(tag) or SIZES.get(tag):
        found, at = struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if tag < 0x80 or tag in NUMBERS:
        return (tag if tag < 0x80 else found), at
    if tag < 0xA0 or tag == 0xDE:
        items, is_array = [], 0x90 <= tag <= 0x9F
        for _ in range(found if is_array else 2 * found):
            item, at = unpack(data, at)
            items.append(item)
        return (items if is_array else dict(zip(items[::2], items[1::2], strict=True))), at
    text, at = data[at : at + found], at + found
    if (tag >= 0xC0 and tag not in SIZES) or len(text) < found:
        raise ValueError(f"msgpack tag {tag:#x}, or the bytes end early")
    return (text if tag in {0xC4, 0xC5} else text.decode()), at


def whole(data: bytes, *kinds: type) -> list[Any]:
    """The value that the bytes hold, an array of exactly these kinds."""
    value, end = unpack(data)
    if end != len(data) or not isinstance(value, list) or tuple(map(type, value)) != kinds:
        raise ValueError(f"not an array of {', '.join(kind.__name__ for kind in kinds)}")
    return value


def opened(statement: bytes, kind: str, keys: list[bytes]) -> list[Any]:
    """The fields of a statement that one of the keys has signed."""
    _, body, signature = whole(statement, *SIGNED)
    name = f"application/vnd.reuna.ledger-{kind}.v1".encode()
    message = b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
            return whole(body, *HEAD if kind == "head" else SEEN)
        except InvalidSignature:
            continue
    raise ValueError(f"the {kind} is not signed by a key known here")


def head_of(statement: bytes, keys: dict[str, list[bytes]]) -> tuple[str, int, bytes]:
    """(ledger, place, digest) of a head, or of the head under a countersignature."""
    if whole(statement, *SIGNED)[0] == "countersignature":
        statement = opened(statement, "countersignature", keys["cloud"])[0]
    ledger, _, _, seq, digest, _ = opened(statement, "head", keys["node"])
    return ledger, seq, digest


def records(folder: str) -> Iterator[bytes]:
    """Every record in order; bytes that are none come as they are."""
    for path in sorted(Path(folder).glob("[0-9]" * 12 + ".ledger")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            raw = data[at + 4 : at + 4 + size]
            good = len(raw) == size and fits(raw)
            yield raw if good else data[at:]
            at = at + 4 + size if good else len(data)


def fits(raw: bytes) -> bool:
    """Whether a record's hash is that of its body."""
    return 32 < len(raw) <= MAX_RECORD and hashlib.sha256(raw[32:]).digest() == raw[:32]


class Ledger:
    def __init__(self, keys: dict[str, list[bytes]], kept: list[bytes], beside: Iterable[bytes] = ()) -> None:
        self.keys, self.kept, self.beside, self.name = keys, kept, beside, ""
        self.count, self.last, self.head_at, self.since = 0, bytes(32), -1, 0
        self.signed: dict[int, bytes] = {}  # place -> digest, of heads in the ledger
        self.known: dict[int, bytes] = {}  # the same of heads kept elsewhere or beside it
        self.outside, self.held = set[int](), -1  # places of those kept elsewhere; the last that agreed
        self.vouched = {"node": -1, "cloud": -1, "elsewhere": -1}  # the last record that each vouches for

    def take(self, raw: bytes) -> None:
        if not fits(raw):
            raise Wrong(self.count, "changed", "its bytes are not those that its hash was made of")
        try:
            form, seq, previous, entry = whole(raw[32:], int, int, bytes, dict)
            kind, statement = entry["kind"], entry.get("statement", b"")
            if form != 1:
                raise ValueError(f"format {form}")
        except (*BAD, KeyError) as error:
            raise Wrong(self.count, "unreadable", error) from error
        if seq != self.count:
            raise Wrong(self.count, "missing" if seq > self.count else "repeated", f"it is number {seq}")
        if previous != self.last:
            raise Wrong(seq, "link", "it names another record before it")
        if (kind == "begin") != (seq == 0):
            raise Wrong(seq, "begin", "a ledger says once, at first, whose it is")
        self.since = 0 if kind == "head" else self.since + 1
        if self.since > HEAD_EVERY:
            raise Wrong(seq, "unsigned", "too many records without the node's signature")
        try:
            if kind in {"begin", "head", "countersigned"}:
                getattr(self, kind)(statement)
        except BAD as error:
            raise Wrong(seq, "head" if self.name else "begin", error) from error
        self.last, self.count = raw[:32], seq + 1
        if self.known.get(seq, self.last) != self.last:
            raise Wrong(self.held + 1, "rewritten", f"or one of those to {seq}")
        self.held = seq if seq in self.known else self.held
        self.vouched["elsewhere"] = seq if seq in self.outside else self.vouched["elsewhere"]

    def begin(self, statement: bytes) -> None:
        self.name, _, _, key = whole(statement, str, str, str, bytes)
        self.keys["node"] = self.keys["node"] or [key]
        heads = [head_of(each, self.keys) for each in self.kept]
        self.outside = {place for name, place, _ in heads if name == self.name}
        if heads and not self.outside:
            raise Wrong(0, "foreign", "the heads given are all of another ledger")
        heads += [head_of(whole(whole(each, *SIGNED)[1], *SEEN)[0], self.keys) for each in self.beside]
        for _, place, digest in (head for head in heads if head[0] == self.name):
            if self.known.setdefault(place, digest) != digest:
                raise Wrong(place, "rewritten", "two heads kept elsewhere contradict each other")

    def head(self, statement: bytes) -> None:
        name, place, digest = head_of(statement, self.keys)
        if (name, place, whole(statement, *SIGNED)[0]) != (self.name, self.count - 1, "head"):
            raise ValueError("it is about another ledger or place")
        if digest != self.last:
            raise Wrong(self.head_at + 1, "rewritten", f"or one of those to {place}")
        self.signed[place], self.head_at, self.vouched["node"] = digest, place, place

    def countersigned(self, statement: bytes) -> None:
        outer, body, _ = whole(statement, *SIGNED)
        inner, signed, _ = whole(whole(body, *SEEN)[0], *SIGNED)
        name, _, _, place, digest, _ = whole(signed, *HEAD)
        if [outer, inner, name, digest] != ["countersignature", "head", self.name, self.signed.get(place)]:
            raise ValueError("it is of a head that is not in this ledger")
        if self.keys["cloud"]:
            head_of(statement, self.keys)
            self.vouched["cloud"] = max(self.vouched["cloud"], place)

    def judge(self, found: Iterable[bytes]) -> None:
        for raw in found:
            self.take(raw)
        if not self.count:
            raise Wrong(0, "empty", "there is no record")
        if max(self.known, default=-1) >= self.count:
            raise Wrong(self.count, "cut", f"a head names number {max(self.known)}")


def main(words: list[str]) -> None:
    """The command."""
    options = dict(zip(words[1::2], words[2::2], strict=False))
    if len(words) % 2 == 0 or not set(options) <= {"--keys", "--heads"}:
        sys.exit(__doc__)
    try:
        options |= {path.name: str(path) for path in Path(words[0]).glob("countersigned")}
        text = {name: Path(path).read_text(encoding="utf-8") for name, path in options.items()}
        given = re.findall(r"(?m)^\s*(node|cloud)\s+([0-9a-fA-F]{64})\b", text.get("--keys", ""))
        keys = {who: [bytes.fromhex(key) for its, key in given if its == who] for who in ("node", "cloud")}
        found = (STATEMENT.findall(text.get(name, "")) for name in ("--heads", "countersigned"))
        ledger = Ledger(keys, *(list(map(bytes.fromhex, each)) for each in found))
        ledger.judge(records(words[0]))
    except Wrong as wrong:
        sys.exit("WRONG at record {}: {} ({})".format(*wrong.args))
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read: {error}")
    print(f"good: {ledger.count} records; the last that each vouches for: {ledger.vouched}")


if __name__ == "__main__":
    main(sys.argv[1:])
