"""A build's bytes: one way to write them, and whatever differs is named."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reuna.core.errors import Untrusted
from reuna.wire import digest_bytes
from reuna.wire.archive import _header, _member
from reuna.wire.build import (
    CODE,
    FORMAT,
    LOCKS,
    MANIFEST,
    MAX_BUILD,
    NEEDED,
    canonical,
    decode,
    encode,
    sha256,
)

PARTS = {name: f"the {name}\n".encode() * (number + 1) for number, name in enumerate(NEEDED)}
GOOD = encode("pump", PARTS)
END = bytes(1024)


def manifest(**changed: Any) -> dict[str, Any]:
    parts = {name: {"sha256": sha256(data), "size": len(data)} for name, data in PARTS.items()}
    return {"format": FORMAT, "project": "pump", "code": digest_bytes(PARTS[CODE]), "parts": parts, **changed}


def archive(said: Any = None, parts: dict[str, bytes] = PARTS, order: Any = sorted) -> bytes:
    first = canonical(said or manifest()) if not isinstance(said, bytes) else said
    return b"".join((_member(MANIFEST, first), *(_member(name, parts[name]) for name in order(parts)), END))


def refusal(data: bytes) -> Untrusted:
    with pytest.raises(Untrusted) as refused:
        decode(data)
    return refused.value


def test_what_was_encoded_is_what_is_decoded() -> None:
    found = decode(GOOD)
    assert found.parts == PARTS
    assert found.manifest.code == digest_bytes(PARTS[CODE])
    assert found.digest == sha256(GOOD)
    assert archive() == GOOD


def test_any_tar_opens_it_and_finds_files_of_nobody_and_of_no_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as found:
        members = found.getmembers()
        assert [each.name for each in members] == [MANIFEST, *sorted(NEEDED)]
        assert all(
            (each.mode, each.mtime, each.uid, each.gid, each.uname) == (0o644, 0, 0, 0, "")
            for each in members
        )
        content = found.extractfile("plan.json")
        assert content
        assert content.read() == PARTS["plan.json"]


@given(st.permutations(list(NEEDED)), st.sampled_from([*LOCKS, None]))
def test_the_order_in_which_parts_come_changes_nothing(names: list[str], lock: str | None) -> None:
    more = {} if lock is None else {lock: b"numpy==2.1.0\n"}
    assert encode("pump", {**more, **{name: PARTS[name] for name in names}}) == encode(
        "pump", {**PARTS, **more}
    )


@given(
    st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable()),
    st.lists(st.binary(max_size=1600), min_size=5, max_size=5),
)
def test_every_build_is_read_back_and_written_again_as_the_same_bytes(
    project: str, contents: list[bytes]
) -> None:
    parts = dict(zip(NEEDED, contents, strict=True))
    data = encode(project, parts)
    found = decode(data)
    assert (found.manifest.project, found.parts) == (project, parts)
    assert encode(found.manifest.project, found.parts) == data


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(GOOD.index(b"pump"), 1)
def test_a_build_in_which_any_byte_was_changed_is_refused_or_one_of_another_project(at: int, by: int) -> None:
    """Its name is the one thing that no digest within the file covers: that of the file does."""
    changed = GOOD[:at] + bytes([GOOD[at] ^ by]) + GOOD[at + 1 :]
    name = GOOD.index(b'"pump"') + 1
    if name <= at < name + 4:
        with suppress(Untrusted):
            assert decode(changed).digest != decode(GOOD).digest
    else:
        refusal(changed)


@given(st.integers(0, len(GOOD) - 1))
def test_a_build_that_was_cut_short_is_refused(size: int) -> None:
    assert refusal(GOOD[:size]).reason == "malformed"


@given(st.binary(min_size=1, max_size=600))
def test_a_build_to_which_anything_was_added_is_refused(more: bytes) -> None:
    refusal(GOOD + more)


def test_a_changed_part_is_named() -> None:
    for name in NEEDED:
        found = refusal(archive(parts={**PARTS, name: PARTS[name].replace(b"the", b"THE")}))
        assert (found.reason, name in found.message) == ("mismatch", True)


def test_a_manifest_that_names_another_code_than_is_in_it_is_refused() -> None:
    found = refusal(archive(manifest(code="ab" * 32)))
    assert (found.reason, found.message) == (
        "mismatch",
        "code.zip has not the digest of code that the build's manifest names",
    )


def without(name: str) -> dict[str, bytes]:
    return {each: data for each, data in PARTS.items() if each != name}


def listed(parts: dict[str, bytes]) -> dict[str, Any]:
    return manifest(parts={name: {"sha256": sha256(data), "size": len(data)} for name, data in parts.items()})


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("missing", archive(listed(without("plan.json")), without("plan.json"))),
        ("mismatch", archive(parts=without("plan.json"))),
        ("mismatch", archive(parts={**PARTS, "run.sh": b""})),
        ("mismatch", archive(order=lambda names: sorted(names, reverse=True))),
        ("malformed", archive(listed({**PARTS, "run.sh": b""}), {**PARTS, "run.sh": b""})),
        ("malformed", archive(listed({**PARTS, "uv.lock": b"", "pylock.toml": b""}), {**PARTS, "uv.lock": b"", "pylock.toml": b""})),
        ("kind", archive(manifest(format="reuna/build/v2"))),
        ("malformed", archive(manifest(more=1))),
        ("malformed", archive(manifest(code="AB" * 32))),
        ("malformed", archive(json.dumps(manifest(), indent=1).encode())),
        ("malformed", archive(b"[" * 5000)),
        ("malformed", archive(b"\xff")),
        ("malformed", archive(b'{"project":"\\ud800"}')),
        ("oversized", archive(b" " * 20_000)),
        ("malformed", GOOD[: 512 * 3] + GOOD),
        ("malformed", b"".join(_member(name, PARTS[name]) for name in NEEDED) + END),
        ("malformed", END),
        ("malformed", b""),
        ("oversized", bytes(MAX_BUILD + 1)),
    ],
)  # fmt: skip
def test_what_is_no_build_of_ours_is_refused(reason: str, data: bytes) -> None:
    assert refusal(data).reason == reason


@pytest.mark.parametrize("name", ["../plan.json", "/etc/passwd", "a/../../x"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    assert refusal(archive(listed({**PARTS, name: b""}), {**PARTS, name: b""})).reason == "malformed"


def test_a_member_of_another_kind_than_a_plain_file_is_refused() -> None:
    for kind in (b"1", b"2", b"5", b"x", b"L"):
        header = bytearray(_header("plan.json", 0))
        header[156:157] = kind
        header[148:156] = b"        "
        header[148:156] = b"%06o\0 " % sum(header)
        data = _member(MANIFEST, canonical(manifest())) + bytes(header) + END
        assert "no header" in refusal(data).message


def test_a_size_beyond_what_a_part_may_have_is_refused_before_it_is_read() -> None:
    assert refusal(_header(MANIFEST, (20 << 20) + 1) + END).reason == "malformed"


def test_canonical_json_has_sorted_keys_and_no_spaces_and_no_number_that_json_lacks() -> None:
    assert canonical({"b": 1.0, "a": "ä"}) == '{"a":"ä","b":1.0}\n'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(float("nan"))
