"""A release is read only as it was written: a changed byte is named, whatever it is."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import Untrusted
from reuna.wire.release import HEAD, MAX_RELEASE, NEEDED, PROVENANCE, About, about, decode, encode

ABOUT = About("pumps", 7, "r-1", "0" * 64)
PARTS = {name: f"{name} of a release\n".encode() for name in NEEDED}
DATA = encode(ABOUT, PARTS)
contents = st.fixed_dictionaries({name: st.binary(max_size=2000) for name in NEEDED})


@given(contents)
def test_what_is_written_is_read_again_and_any_tar_opens_it(parts: dict[str, bytes]) -> None:
    data = encode(ABOUT, parts)
    found = decode(data)
    assert (found.parts, found.manifest.about, found.digest) == (
        parts,
        ABOUT,
        hashlib.sha256(data).hexdigest(),
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == ["manifest.json", *sorted(NEEDED)]
    assert encode(ABOUT, dict(reversed(parts.items()))) == data, "no order of the parts changes it"


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_one_changed_byte_is_refused_or_says_another_thing_of_the_same_parts(at: int, change: int) -> None:
    broken = bytearray(DATA)
    broken[at] ^= change
    try:
        found = decode(bytes(broken))
    except Untrusted:
        return
    assert found.manifest.about != ABOUT, "only the words about it may be others, and then its digest is"
    assert (found.parts, found.digest != decode(DATA).digest) == (PARTS, True)


@given(st.integers(0, len(DATA) - 1))
def test_a_release_that_is_cut_or_grown_is_refused(at: int) -> None:
    with pytest.raises(Untrusted):
        decode(DATA[:at])
    with pytest.raises(Untrusted):
        decode(DATA + DATA[at:])


@given(st.binary(max_size=3000))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Untrusted):
        decode(data)


def test_an_endless_release_is_refused_unread() -> None:
    with pytest.raises(Untrusted, match="at most"):
        decode(bytes(MAX_RELEASE + 1))


@pytest.mark.parametrize("project", ["", "x" * 201])
def test_who_makes_a_release_that_nobody_could_read_hears_it(project: str) -> None:
    with pytest.raises(Untrusted):
        encode(About(project, 7, "r-1", "0" * 64), PARTS)
    with pytest.raises(Untrusted):
        encode(About("pumps", 0, "r-1", "0" * 64), PARTS)


def test_only_the_provenance_of_a_build_may_be_there_or_not() -> None:
    with_it = {**PARTS, PROVENANCE: b"{}\n"}
    assert decode(encode(ABOUT, with_it)).parts == with_it
    for parts in ({**PARTS, "notes.txt": b""}, {name: PARTS[name] for name in NEEDED[1:]}):
        with pytest.raises(Untrusted, match="a release holds"):
            encode(ABOUT, parts)


def test_its_bytes_stay_as_they_were_published() -> None:
    assert (
        hashlib.sha256(DATA).hexdigest() == "965de92c480666b316b4c9f869b513dd018bae0a596751461a3733e9e1c154ac"
    )


def test_which_release_it_is_stands_at_the_start_of_the_file() -> None:
    large = encode(ABOUT, {**PARTS, "model.onnx": bytes(2 * HEAD)})
    assert about(large[:HEAD]) == ABOUT


@given(st.integers(0, 511), st.binary(max_size=3000))
def test_a_start_that_is_none_of_a_release_is_refused(at: int, other: bytes) -> None:
    for data in (DATA[:at], other, bytes(2048), DATA[DATA.index(b"bins.json\0") :]):
        with pytest.raises(Untrusted):
            about(data)
