"""One signed folder: whatever is changed, taken or added in it is refused by its name."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from reuna.adapters.head_store import HeadStore, Kept
from reuna.adapters.trust_keys import write_key
from reuna.cli import app
from reuna.cloud.files import HEADS as HEADS_FILE
from reuna.core.errors import KeyProblem, NotUsable, ReleaseNotFound, ReunaError, Untrusted
from reuna.fleet import evidence
from reuna.fleet.allowed import newest_heads
from reuna.fleet.evidence import ENVELOPE, HEADS, export, sign_more, signing, verify
from reuna.fleet.release import Catalogue
from reuna.fleet.trust import Ceremony, add_bytes, make_trust, rotate
from reuna.template import make_project
from reuna.trust.envelope import MAX_ENVELOPE, add_signature
from reuna.trust.evidence import judge, named
from reuna.trust.heads import countersign, sign_head
from reuna.trust.ledger import Head
from tests.made_releases import CODE, add

RUN = CliRunner()
NOW = 1_795_000_000.0
ANNA, OTTO, CLOUD, NODE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4))


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def head(seq: int = 7, cloud: Ed25519PrivateKey = CLOUD) -> dict[str, Any]:
    said = sign_head(Head("ab" * 16, "pump-1", "pump-1", seq, bytes(32), 1_000), NODE)
    signed = countersign(said, [bytes.fromhex(public(NODE))], cloud, None, 2_000)
    return {
        "node": "spiffe://fog-1.local/edge/pump-1", "ledger": "ab" * 16, "seq": seq, "at": 2.0,
        "key": public(NODE), "countersignature": signed.hex(),
    }  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    found = Catalogue.of(tmp_path / "releases", "pumps")
    add(found, 1)
    add(found, 2, found.read(1).digest, heads=[head()])
    return found


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet") / "trust"
    make_trust(folder, "local", NOW)
    add_bytes(ceremony(folder), CODE, "code", "pumps")
    return folder


def ceremony(folder: Path) -> Ceremony:
    return Ceremony(folder, NOW, lambda _: b"")


def release_key(trust: Path) -> Ed25519PrivateKey:
    return ceremony(trust).key(max((trust / "keys").glob("release-*.key")))


def folder(catalogue: Catalogue, **more: Any) -> Path:
    to = catalogue.folder.parent.parent / "pumps-0002.evidence"
    export(catalogue, 2, to, signing([ANNA]), NOW, **more)
    return to


def refusal(at: Path, **more: Any) -> str:
    with pytest.raises(Untrusted) as refused:
        verify(at, **(more or {"signers": [public(ANNA)]}))
    return str(refused.value)


def test_it_holds_everything_that_is_asked_for_and_checks_out(catalogue: Catalogue, trust: Path) -> None:
    at = folder(catalogue, trust=trust, heads=[head(9)])
    names = {path.relative_to(at).as_posix() for path in at.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "SHA256SUMS", "approvals.json", "card.md", "contract.json", "evidence.intoto.json",
        "gates.json", "heads.json", "history.json", "lineage.json", "release.json", "sbom.cdx.json",
        "trust/1.root.json", "trust/code.json", "trust/targets.json",
    }  # fmt: skip
    found = verify(at, signers=[public(ANNA)])
    assert (found.judged.about.version, found.judged.about.release) == (2, catalogue.read(2).digest)
    assert found.judged.about.made == "2026-11-18T11:06:40Z"
    assert (found.heads, found.others, found.vouched, found.root) == (0, 2, None, 0)
    assert [each["version"] for each in json.loads((at / "history.json").read_bytes())["replaces"]] == [1]
    assert b"a graph" not in b"".join((at / name).read_bytes() for name in names), "neither model nor code"
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=at).returncode == 0


def test_the_pinned_root_alone_says_who_must_have_signed(catalogue: Catalogue, trust: Path) -> None:
    to = catalogue.folder.parent / "by-the-fleet"
    export(catalogue, 2, to, signing([release_key(trust)]), NOW, trust)
    found = verify(to, pin=(trust / "root.json").read_bytes())
    assert (found.root, found.vouched) == (1, True)
    assert found.judged.signed_by == (public(release_key(trust)),)
    assert "must sign it" in refusal(folder(catalogue, trust=trust), pin=(trust / "root.json").read_bytes())


def test_a_root_that_was_replaced_leads_to_the_keys_of_today(catalogue: Catalogue, tmp_path: Path) -> None:
    trust = tmp_path / "trust"
    pin = make_trust(trust, "local", NOW)
    old = release_key(trust)
    rotate(ceremony(trust), "release", None)
    to = tmp_path / "evidence"
    export(catalogue, 2, to, signing([release_key(trust)]), NOW, trust)
    found = verify(to, pin=pin)
    assert (found.root, found.vouched) == (2, False), "nobody signed for the code here"
    stale = tmp_path / "stale"
    export(catalogue, 2, stale, signing([old]), NOW, trust)
    assert "must sign it" in refusal(stale, pin=pin)


def test_heads_are_of_the_cloud_whose_keys_the_fleet_lists(catalogue: Catalogue, trust: Path) -> None:
    cloud = ceremony(trust).key(next((trust / "online").glob("plans-*.key")))
    to = catalogue.folder.parent / "e"
    export(catalogue, 2, to, signing([release_key(trust)]), NOW, trust, [head(9, cloud)])
    found = verify(to, pin=(trust / "root.json").read_bytes())
    assert (found.heads, found.others) == (1, 1)


@pytest.mark.parametrize("field", ["key", "countersignature"])
def test_a_head_that_was_made_up_is_refused_also_when_it_was_signed_for(
    catalogue: Catalogue, field: str
) -> None:
    false = {**head(), field: public(OTTO) if field == "key" else head()[field][:-2] + "00"}
    assert "heads.json, spiffe://fog-1.local/edge/pump-1" in refusal(folder(catalogue, heads=[false]))


def files(at: Path) -> Iterator[Path]:
    return (path for path in sorted(at.rglob("*")) if path.is_file())


def test_every_changed_file_is_refused_by_its_name(catalogue: Catalogue, trust: Path) -> None:
    at = folder(catalogue, trust=trust)
    for file in files(at):
        good = file.read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            assert file.relative_to(at).as_posix() in refusal(at), f"byte {place}"
        for longer in (good + b"\n", good + b" ", good[:-1]):
            file.write_bytes(longer)
            assert file.relative_to(at).as_posix() in refusal(at)
        file.write_bytes(good)
    assert verify(at, signers=[public(ANNA)])


def test_every_byte_of_the_envelope_counts(catalogue: Catalogue) -> None:
    good = (folder(catalogue) / ENVELOPE).read_bytes()
    anna = named([public(ANNA)], 1)
    assert judge(good, anna).signed_by == (public(ANNA),)
    for place in range(len(good)):
        for change in (1, 32) if place % 9 == 0 else (1,):
            with pytest.raises(Untrusted):
                judge(good[:place] + bytes([good[place] ^ change]) + good[place + 1 :], anna)


def test_base64_that_another_text_gives_too_is_refused(catalogue: Catalogue) -> None:
    """The last letter before the padding has bits that no byte is made of."""
    good, anna = (folder(catalogue) / ENVELOPE).read_text(), named([public(ANNA)], 1)
    sig = json.loads(good)["signatures"][0]["sig"]
    other = f"{sig[:-3]}{chr(ord(sig[-3]) + 1)}=="
    assert base64.b64decode(other) == base64.b64decode(sig)
    with pytest.raises(Untrusted, match="was changed"):
        judge(good.replace(sig, other).encode(), anna)


def test_every_removed_file_is_refused_by_its_name(catalogue: Catalogue, trust: Path) -> None:
    at = folder(catalogue, trust=trust)
    for file in files(at):
        good = file.read_bytes()
        file.unlink()
        said = refusal(at)
        assert file.relative_to(at).as_posix() in said
        assert "missing" in said
        file.write_bytes(good)


def test_whatever_is_added_is_refused_by_its_name(catalogue: Catalogue, tmp_path: Path) -> None:
    at = folder(catalogue)
    (tmp_path / "elsewhere").write_text("x")
    for name, put in {
        "notes.txt": lambda path: path.write_text("x"),
        ".hidden": lambda path: path.write_text(""),
        "empty": Path.mkdir,
        "more/notes.txt": lambda path: (path.parent.mkdir(), path.write_text("x")),
        "link": lambda path: path.symlink_to(tmp_path / "elsewhere"),
        "dangling": lambda path: path.symlink_to("nowhere"),
    }.items():
        put(at / name)
        assert f"{name} was added" in refusal(at)
        subprocess.run(["rm", "-r", str(at / name.partition("/")[0])], check=True)
    (at / "card.md").rename(tmp_path / "card.md")
    (at / "card.md").symlink_to(tmp_path / "card.md")
    assert "card.md was added: evidence holds plain files alone" in refusal(at), "the same bytes by a link"


def test_a_folder_without_end_is_not_walked_to_it(catalogue: Catalogue, monkeypatch: Any) -> None:
    at = folder(catalogue)
    monkeypatch.setattr(evidence, "MAX_FILES", 6)
    assert "more files than evidence has" in refusal(at)


def test_parts_of_another_release_are_refused_though_they_were_signed(
    catalogue: Catalogue, monkeypatch: Any
) -> None:
    whole = evidence._papers
    monkeypatch.setattr(evidence, "_papers", lambda *of: {**whole(*of), "card.md": b"another"})
    assert "card.md is not the part that release.json names" in refusal(folder(catalogue))


def test_lists_that_others_have_signed_are_refused(
    catalogue: Catalogue, trust: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    other = tmp_path / "other"
    make_trust(other, "local", NOW)
    whole = evidence._public
    mine = whole(other)["trust/code.json"]
    monkeypatch.setattr(evidence, "_public", lambda at: {**whole(at), "trust/code.json": mine})
    to = tmp_path / "e"
    export(catalogue, 2, to, signing([release_key(trust)]), NOW, trust)
    assert "trust/code.json" in refusal(to, pin=(trust / "root.json").read_bytes())


def test_more_keys_may_sign_and_a_threshold_counts_different_ones(catalogue: Catalogue) -> None:
    at = folder(catalogue)
    both: dict[str, Any] = {"signers": [public(ANNA), public(OTTO)], "threshold": 2}
    assert "2 of the keys" in refusal(at, **both)
    sign_more(at, OTTO)
    assert set(verify(at, **both).judged.signed_by) == {public(ANNA), public(OTTO)}
    assert verify(at, signers=[public(ANNA)]).judged.others == (public(OTTO),)
    assert "must sign it" in refusal(at, signers=[public(CLOUD)])
    (at / "card.md").write_text("another")
    with pytest.raises(Untrusted, match=r"card\.md"):
        sign_more(at, CLOUD)


def test_a_signature_that_is_not_good_is_refused_also_where_it_does_not_count(catalogue: Catalogue) -> None:
    at = folder(catalogue)
    said = json.loads((at / ENVELOPE).read_bytes())
    said["signatures"].append({"keyid": public(OTTO), "sig": said["signatures"][0]["sig"]})
    text = json.dumps(said, sort_keys=True, separators=(",", ":")) + "\n"
    (at / ENVELOPE).write_text(text)
    assert "was changed" in refusal(at)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, bytes(MAX_ENVELOPE + 1)])
def test_an_envelope_of_any_other_bytes_is_one_error(catalogue: Catalogue, data: bytes) -> None:
    at = folder(catalogue)
    (at / ENVELOPE).write_bytes(data)
    assert ENVELOPE in refusal(at)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {"format": "reuna/evidence/v2"}},
        {"predicate": []},
        {"subject": [{"name": "README.md"}]},
        {"subject": [7]},
        {"more": 1},
    ],
)
def test_a_statement_of_another_kind_is_refused_though_it_was_signed(
    catalogue: Catalogue, change: dict[str, Any]
) -> None:
    from reuna.trust.envelope import open_envelope, payload_of, seal

    at = folder(catalogue)
    said = json.loads(payload_of(open_envelope((at / ENVELOPE).read_bytes())))
    (at / ENVELOPE).write_bytes(add_signature(seal({**said, **change}), ANNA))
    assert ENVELOPE in refusal(at)


def test_what_fails_leaves_nothing_behind(catalogue: Catalogue, monkeypatch: Any) -> None:
    parent = catalogue.folder.parent.parent
    before = sorted(parent.iterdir())
    real = evidence.replace_file

    def full(path: Path, data: bytes, mode: int) -> None:
        if path.name == "lineage.json":
            raise OSError(28, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(evidence, "replace_file", full)
    with pytest.raises(ReunaError, match="no space left"):
        folder(catalogue)
    assert sorted(parent.iterdir()) == before
    with pytest.raises(KeyProblem, match="without a signature"):
        export(catalogue, 2, parent / "e", signing([]), NOW)
    with pytest.raises(ReleaseNotFound):
        export(catalogue, 9, parent / "e", signing([ANNA]), NOW)
    assert sorted(parent.iterdir()) == before


def test_evidence_is_never_written_over(catalogue: Catalogue) -> None:
    at = folder(catalogue)
    with pytest.raises(NotUsable, match="is there already"):
        folder(catalogue)
    assert verify(at, signers=[public(ANNA)])


def test_who_names_no_key_or_two_ways_is_told(catalogue: Catalogue) -> None:
    at = folder(catalogue)
    for pin, signers in ((None, ()), (b"{}", (public(ANNA),))):
        with pytest.raises(KeyProblem, match="a key that you trust"):
            verify(at, pin, signers)
    with pytest.raises(NotUsable, match="is no folder"):
        verify(at / "card.md", signers=[public(ANNA)])
    with pytest.raises(Untrusted):
        verify(at, b"no root")


def test_the_readme_checks_it_without_reuna(catalogue: Catalogue, tmp_path: Path) -> None:
    at = folder(catalogue)
    (code,) = re.findall(r"```python\n(.*?)```", (at / "README.md").read_text(), re.DOTALL)

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], cwd=at, capture_output=True, text=True)

    assert (
        check().stdout == f"signed by {public(ANNA)}\n{len(list(files(at))) - 1} files as they were signed\n"
    )
    (at / "gates.json").write_text("{}\n")
    assert "changed: gates.json" in check().stderr
    (at / "more.txt").write_text("")
    assert "more.txt" in check().stderr


def test_the_newest_head_of_each_node_is_taken_from_the_cloud(tmp_path: Path) -> None:
    assert newest_heads(tmp_path / HEADS_FILE) == []
    with closing(HeadStore(tmp_path / HEADS_FILE)) as store:
        for seq in (3, 8):
            store.keep(Kept("spiffe://f/edge/a", "l", b"k" * 32, seq, float(seq), b"h", b"c"))
    (found,) = newest_heads(tmp_path / HEADS_FILE)
    assert (found["seq"], found["countersignature"]) == (8, b"c".hex())


def test_the_commands_write_sign_and_verify(
    catalogue: Catalogue, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path / "pumps", sample=False)
    write_key(tmp_path / "anna.key", ANNA, None)
    places = ["--project", str(tmp_path / "pumps"), "--releases", str(tmp_path / "releases")]
    to, key = ["--to", str(tmp_path / "e")], ["--key", str(tmp_path / "anna.key")]
    made = RUN.invoke(app, ["evidence", "export", "2", *places, *to, "--trust", str(trust), "--json"])
    assert json.loads(made.stdout)["version"] == 2
    assert RUN.invoke(app, ["evidence", "sign", str(tmp_path / "e"), *key]).exit_code == 0
    shown = RUN.invoke(app, ["evidence", "verify", str(tmp_path / "e"), "--root", str(trust / "root.json")])
    for words in ("release     pumps 2, run r-2", "which nobody named", "code role   has signed", "14 files"):
        assert words in shown.stdout
    found = RUN.invoke(
        app, ["evidence", "verify", str(tmp_path / "e"), "--signer", f"anna={public(ANNA)}", "--json"]
    )
    assert json.loads(found.stdout)["signed_by"] == [public(ANNA)]
    monkeypatch.chdir(tmp_path)
    assert RUN.invoke(app, ["evidence", "export", "2", *places, *key]).exit_code == 0
    assert verify(tmp_path / "evidence" / "pumps-0002", signers=[public(ANNA)])
    (tmp_path / "e" / HEADS).unlink()
    gone = RUN.invoke(app, ["evidence", "verify", str(tmp_path / "e"), "--root", str(trust / "root.json")])
    assert isinstance(gone.exception, Untrusted)
    assert isinstance(RUN.invoke(app, ["evidence", "verify", "x", "--root", "no-such"]).exception, NotUsable)
    assert msgspec.json.decode(json.dumps(json.loads(made.stdout)))["format"] == "reuna/evidence/v1"
