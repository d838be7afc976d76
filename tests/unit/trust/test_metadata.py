"""Attacks on what comes down, made by hand: each refused, and each good when it is not an attack."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from reuna.core.errors import DISTRUST, Untrusted
from reuna.trust import metadata as trust
from reuna.trust import parse as parsing
from reuna.trust import publish
from reuna.trust.metadata import begin, complete, refresh, take, update, wanted
from reuna.trust.publish import DAY, Ring, public_of
from reuna.trust.roles import LIMITS
from reuna.trust.targets import check_bytes, target, targets
from tests.unit.trust.house import FLEET, NOW, House, key, thing


@pytest.fixture
def house() -> House:
    return House()


def refused(reason: str) -> Any:
    """Expects `Untrusted` with that reason."""
    assert reason in DISTRUST
    return pytest.raises(Untrusted, check=lambda error: error.reason == reason)


def changed(data: bytes, **fields: Any) -> bytes:
    """A file with other signed fields and its old signatures."""
    tree = json.loads(data)
    tree["signed"].update(fields)
    return json.dumps(tree).encode()


# --- what is good ----------------------------------------------------------------------------------


def test_a_node_with_the_root_takes_everything_over_and_knows_what_may_come_down(house: House) -> None:
    state = house.update()
    assert complete(state)
    assert state.signed_time == NOW
    assert [each.path for each in targets(state, NOW)] == ["code/detector", "plans/r-1", "releases/pump"]
    assert target(state, "releases/pump", NOW).kind == "release"
    assert check_bytes(target(state, "code/detector", NOW), b"bytes") == b"bytes"


def test_a_second_walk_asks_for_the_next_root_and_the_timestamp_alone(house: House) -> None:
    asked = []

    def received(name: str) -> bytes | None:
        asked.append(name)
        return house.files.get(name)

    state = house.update()
    assert update(state, received, NOW) == state
    assert asked == ["2.root.json", "timestamp.json"]


def test_a_state_survives_its_way_through_a_file(house: House) -> None:
    state = house.update()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=trust.TrustState) == state


def test_every_file_is_wanted_with_the_length_its_parent_names(house: House) -> None:
    step = refresh(house.begin(), NOW)
    limits = {}
    while (file := wanted(step)) is not None:
        limits[file.name] = file.limit
        step = take(step, house.files.get(file.name))
    assert limits["timestamp.json"] == LIMITS["timestamp"]
    assert limits["1.targets.json"] == len(house.files["1.targets.json"])


# --- rollback --------------------------------------------------------------------------------------


def test_an_older_timestamp_is_refused(house: House) -> None:
    old = house.newest["timestamp"]
    house.timestamp()
    state = house.update()
    house.files["timestamp.json"] = old
    with refused("version"):
        house.update(state)
    assert house.update(msgspec.structs.replace(state, floors={}))  # the floor alone refused it


def test_a_timestamp_naming_an_older_snapshot_is_refused(house: House) -> None:
    house.online()
    state = house.update()
    house.versions["snapshot"], house.newest["snapshot"] = 1, house.files["1.snapshot.json"]
    house.timestamp()
    with refused("version"):
        house.update(state)


@pytest.mark.parametrize("role", ["targets", "code", "plans"])
def test_a_snapshot_naming_an_older_file_of_a_role_is_refused(house: House, role: str) -> None:
    house.list(role)
    house.online()
    state = house.update()
    house.snapshot(**{role: (1, house.files[f"1.{role}.json"])})  # both online keys are the thief's
    house.timestamp()
    with refused("version"):
        house.update(state)
    assert complete(house.update(msgspec.structs.replace(state, floors={})))


def test_another_timestamp_of_the_same_number_is_refused(house: House) -> None:
    state = house.update()
    house.versions["timestamp"] -= 1
    house.now += 1
    house.timestamp()
    with refused("conflict"):
        house.update(state)


def test_an_older_root_is_refused(house: House) -> None:
    house.root()
    state = house.update()
    house.files["3.root.json"] = house.files["1.root.json"]
    with refused("version"):
        house.update(state)


# --- freeze ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "days"),
    [("timestamp", 1), ("snapshot", 7), ("plans", 7), ("targets", 365), ("code", 365), ("root", 365)],
)
def test_a_role_held_back_past_its_end_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch, role: str, days: int
) -> None:
    for other in set(publish.LIFE) - {role}:  # everything else would live on
        monkeypatch.setitem(publish.LIFE, other, 4000 * DAY)
    house = House()
    late = NOW + days * DAY
    assert complete(house.update(now=late - 1))
    with refused("expired"):
        house.update(now=late)
    with refused("expired"):
        house.update(house.update(), now=late)


def test_what_was_accepted_is_not_used_past_its_end(house: House) -> None:
    state = house.update()
    assert target(state, "releases/pump", NOW + DAY - 1)
    with refused("expired"):
        target(state, "releases/pump", NOW + DAY)


def test_a_clock_set_back_brings_nothing_back_to_life(house: House) -> None:
    state = house.update()
    house.now += 3 * DAY
    house.timestamp()
    state = house.update(state, now=NOW)  # this node's clock stands still
    assert trust.clock(state, NOW) == NOW + 3 * DAY
    house.now -= 3 * DAY
    house.timestamp()  # newer by its number, but over by the time that was signed
    with refused("expired"):
        house.update(state, now=NOW)


def test_a_node_without_a_battery_learns_the_time(house: House) -> None:
    state = house.update(now=0.0)
    assert target(state, "releases/pump", 0.0)
    assert trust.clock(state, 0.0) == NOW


@pytest.mark.parametrize("made", [None, -1, "soon", True, int(NOW + 2 * DAY), 2**60])
def test_a_timestamp_that_lies_about_its_time_is_refused(house: House, made: Any) -> None:
    house.timestamp(lambda signed: signed.unrecognized_fields.update(reuna={"made": made}))
    with refused("malformed"):
        house.update()


# --- mix and match, tampering ----------------------------------------------------------------------


def test_a_snapshot_of_another_moment_is_refused(house: House) -> None:
    house.online()
    house.files["2.snapshot.json"] = house.files["1.snapshot.json"]
    with refused("mismatch"):
        house.update()


@pytest.mark.parametrize("role", ["targets", "code", "plans"])
def test_a_file_of_another_moment_is_refused(house: House, role: str) -> None:
    house.list(role)
    house.online()
    house.files[f"2.{role}.json"] = house.files[f"1.{role}.json"]
    with refused("mismatch"):
        house.update()


def test_a_file_with_another_number_than_its_parent_names_is_refused(house: House) -> None:
    house.snapshot(targets=(7, house.newest["targets"]))
    house.timestamp()
    house.files["7.targets.json"] = house.newest["targets"]
    with refused("mismatch"):
        house.update()


@pytest.mark.parametrize("role", ["snapshot", "targets", "code", "plans"])
def test_one_changed_byte_is_refused(house: House, role: str) -> None:
    data = bytearray(house.newest[role])
    data[len(data) // 2] ^= 1
    house.files[f"1.{role}.json"] = bytes(data)
    with refused("mismatch"):
        house.update()


def test_tampered_bytes_of_a_target_are_refused(house: House) -> None:
    pump = target(house.update(), "releases/pump", NOW)
    for data in (b"bytez", b"bytes and more", b""):
        with refused("mismatch"):
            check_bytes(pump, data)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "code", "plans"])
def test_a_file_that_nobody_gives_is_missed(house: House, role: str) -> None:
    del house.files["timestamp.json" if role == "timestamp" else f"1.{role}.json"]
    with refused("missing"):
        house.update()


def test_a_snapshot_that_leaves_out_a_role_is_refused(house: House) -> None:
    number = house.next("snapshot")
    listed = {role: (1, house.newest[role]) for role in ("targets", "plans")}
    house.put("snapshot", publish.sign(publish.snapshot(number, listed, NOW), [key("online-1")]))
    house.timestamp()
    with refused("missing"):
        house.update()


# --- endless data, bombs ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["root", "timestamp"])
def test_more_bytes_than_a_role_may_have_are_refused_before_they_are_read(house: House, role: str) -> None:
    name = "2.root.json" if role == "root" else "timestamp.json"
    house.files[name] = house.newest[role] + b" " * LIMITS[role]
    with refused("oversized"):
        house.update()


@pytest.mark.parametrize("role", ["snapshot", "targets", "code", "plans"])
def test_a_parent_that_names_an_endless_file_is_refused(house: House, role: str) -> None:
    endless = b" " * (LIMITS[role] + 1)
    if role == "snapshot":
        house.newest["snapshot"] = endless
    else:
        house.snapshot(**{role: (1, endless)})
    house.timestamp()
    with refused("oversized"):
        house.update()


BOMBS = {
    "nothing": b"",
    "no JSON": b"\x80\x04",
    "a number": b"7",
    "a list": b"[]",
    "empty": b"{}",
    "deep lists": b"[" * 8000 + b"]" * 8000,
    "deep objects": b'{"a":' * 2500 + b"1" + b"}" * 2500,
    "no text": b'{"signed": "\xff\xfe"}',
    "huge number": b'{"signed": ' + b"9" * 9000 + b"}",
    "signed is a list": b'{"signed": [], "signatures": []}',
    "unknown type": b'{"signed": {"_type": "mirrors"}, "signatures": []}',
    "type is a list": b'{"signed": {"_type": ["root"]}, "signatures": []}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json"])
def test_a_bomb_is_refused_as_malformed(house: House, name: str, bomb: bytes) -> None:
    house.files[name] = bomb
    with refused("malformed"):
        house.update()


@pytest.mark.parametrize("depth", [7, 11, 500])
def test_only_what_is_nested_too_deep_is_malformed(house: House, depth: int) -> None:
    """Within the depth it is read, and found to be unsigned."""
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    house.files["timestamp.json"] = changed(house.newest["timestamp"], deep=deep)
    with refused("signature" if depth < 10 else "malformed"):
        house.update()


@pytest.mark.parametrize(
    "fields",
    [
        {"spec_version": "2.0.0"},
        {"spec_version": "one"},
        {"spec_version": 1},
        {"version": 0},
        {"version": -3},
        {"version": "1"},
        {"version": 2.5},
        {"version": True},
        {"version": 2**60},
        {"expires": "tomorrow"},
        {"expires": 5},
        {"meta": {}},
        {"meta": []},
        {"_type": "snapshot"},
    ],
)
def test_fields_that_make_no_sense_are_malformed_whoever_signed(house: House, fields: dict[str, Any]) -> None:
    house.files["timestamp.json"] = changed(house.newest["timestamp"], **fields)
    with refused("malformed"):
        house.update()


def test_every_cut_of_every_file_is_refused(house: House) -> None:
    whole = dict(house.files)
    for name in set(whole) - {"1.root.json"}:
        for end in range(0, len(whole[name]), 97):
            house.files = {**whole, name: whole[name][:end]}
            with pytest.raises(Untrusted):
                house.update()


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["code", "targets"])
def test_stolen_online_keys_cannot_ship_code_or_a_release(house: House, role: str) -> None:
    """The thief has every online key and signs snapshot and timestamp over a forged list."""
    state = house.update()
    house.listed[role].append(thing(f"{'code' if role == 'code' else 'releases'}/evil", "code"))
    house.list(role, signers=[key("online-1"), key("plans-1")])
    house.online()
    with refused("signature"):
        house.update(state)


@pytest.mark.parametrize("role", ["code", "targets"])
def test_one_officer_of_two_cannot_ship_alone(house: House, role: str) -> None:
    house.list(role, signers=house.signers(role)[:1])
    house.online()
    with refused("signature"):
        house.update()
    house.list(role)
    house.online()
    assert complete(house.update())


def test_the_plans_key_cannot_name_code_or_a_release(house: House) -> None:
    house.listed["plans"] += [thing("code/evil", "code"), thing("releases/evil", "release")]
    house.list("plans")
    house.online()
    state = house.update()
    for path in ("code/evil", "releases/evil"):
        with refused("unknown"):
            target(state, path, NOW)
    assert [each.path for each in targets(state, NOW)] == ["code/detector", "plans/r-1", "releases/pump"]


def test_the_release_key_cannot_name_code(house: House) -> None:
    house.listed["targets"].append(thing("code/evil", "code"))
    house.list("targets")
    house.online()
    with refused("unknown"):
        target(house.update(), "code/evil", NOW)


@pytest.mark.parametrize("kind", ["code", "plan", "mirror", ""])
def test_a_target_called_another_kind_than_its_folder_is_refused(house: House, kind: str) -> None:
    house.listed["targets"] = [thing("releases/pump", kind)]
    house.list("targets")
    house.online()
    with refused("kind"):
        target(house.update(), "releases/pump", NOW)


@pytest.mark.parametrize(
    "path", ["", "/", "releases", "../x", "releases/../x", "releases/a/b", "releases/", "A/b"]
)
def test_a_path_that_could_lead_elsewhere_is_unknown(house: House, path: str) -> None:
    with refused("unknown"):
        target(house.update(), path, NOW)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "code", "plans", "targets"])
def test_a_role_signed_by_another_roles_key_is_refused(house: House, role: str) -> None:
    wrong = [key("code-1"), key("code-2")] if role != "code" else [key("release-1"), key("release-2")]
    if role in {"timestamp", "snapshot"}:
        house.names[role] = ["code-1"]
        house.online()
    else:
        house.list(role, signers=wrong)
        house.online()
    with refused("signature"):
        house.update()


def test_one_signature_given_twice_counts_once(house: House) -> None:
    tree = json.loads(house.list("code", signers=[key("code-1")]))
    tree["signatures"] *= 2
    house.put("code", json.dumps(tree).encode())
    house.online()
    with refused("malformed"):
        house.update()


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_one_key_under_two_names_counts_once(house: House, spelling: Any) -> None:
    """The library counts key ids; a root that names one key twice would meet a threshold of two alone."""
    root = publish.root(FLEET, 2, {**_rings(house)}, NOW)
    first = root.signed.keys[root.signed.roles["root"].keyids[0]]
    twin = first.to_dict()
    twin["keyval"]["public"] = spelling(twin["keyval"]["public"])
    root.signed.keys["twin"] = type(first).from_dict("twin", twin)
    root.signed.roles["root"].keyids = [first.keyid, "twin"]
    house.versions["root"] = 2
    house.put("root", publish.sign(root, [key("root-1"), key("root-2")]))
    with refused("keys"):
        house.update()


def test_a_key_that_holds_an_online_and_an_offline_role_is_refused(house: House) -> None:
    house.names["plans"] = ["code-1"]
    house.list("targets")
    house.list("plans")
    house.online()
    with refused("keys"):
        house.update()


@pytest.mark.parametrize("fault", ["rsa", "short", "absent", "threshold", "none"])
def test_a_root_with_keys_that_cannot_be_counted_is_refused(house: House, fault: str) -> None:
    root = publish.root(FLEET, 2, _rings(house), NOW)
    role = root.signed.roles["targets"]
    one = root.signed.keys[role.keyids[0]]
    match fault:
        case "rsa":
            one.keytype, one.scheme = "rsa", "rsassa-pss-sha256"
        case "short":
            one.keyval["public"] = "00"
        case "absent":
            del root.signed.keys[role.keyids[0]]
        case "threshold":
            role.threshold = 3
        case "none":
            role.keyids = []
    house.versions["root"] = 2
    house.put("root", publish.sign(root, house.signers("root")))
    with refused("keys"):
        house.update()


def _rings(house: House) -> dict[str, Ring]:
    return {role: house.ring(role) for role in ("root", "targets", "snapshot", "timestamp")}


# --- root ------------------------------------------------------------------------------------------


def test_a_root_with_too_few_signatures_is_refused(house: House) -> None:
    house.root(signers=[key("root-1")])
    with refused("signature"):
        house.update()


def test_a_pinned_root_must_be_signed_by_its_own_keys_and_of_this_fleet() -> None:
    house = House()
    tree = json.loads(house.pin)
    tree["signatures"] = tree["signatures"][:1]
    with refused("signature"):
        begin(FLEET, json.dumps(tree).encode())
    with refused("fleet"):
        begin("line-5", house.pin)


def test_a_root_of_another_fleet_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.trust.house.FLEET", "line-5")
    house.root()
    with refused("fleet"):
        house.update()


def test_a_root_signed_by_the_new_keys_alone_is_refused(house: House) -> None:
    house.names["root"] = ["thief-1", "thief-2"]
    house.root()
    with refused("signature"):
        house.update()


def test_a_root_signed_by_the_old_keys_alone_is_refused(house: House) -> None:
    old = house.signers("root")
    house.names["root"] = ["new-1", "new-2"]
    house.root(signers=old)
    with refused("signature"):
        house.update()


def test_root_keys_rotate_when_the_old_threshold_signs_the_new(house: House) -> None:
    old = house.signers("root")
    house.names["root"] = ["new-1", "new-2"]
    house.root(signers=[*old, key("new-1"), key("new-2")])
    house.root()
    assert house.update().root.version == 3


def test_a_root_that_skips_a_version_is_refused(house: House) -> None:
    house.versions["root"] = 2
    house.files["2.root.json"] = house.root()
    with refused("version"):
        house.update()


def test_more_new_roots_at_once_than_allowed_are_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "MAX_ROOTS", 2)
    for _ in range(3):
        house.root()
    with refused("oversized"):
        house.update()


# --- recovery --------------------------------------------------------------------------------------


def test_after_new_online_keys_numbers_driven_up_by_a_thief_are_forgotten(house: House) -> None:
    honest = dict(house.versions)
    for role in ("timestamp", "snapshot"):
        house.versions[role] = 2**50
    house.online()
    house.now += 3600
    house.timestamp()
    state = house.update()
    assert state.floors["snapshot"] > 2**49
    house.now -= 3600
    house.versions.update(honest)
    for role in ("timestamp", "snapshot"):
        house.names[role] = ["online-2"]
    house.root()
    house.online()
    state = house.update(state)
    assert complete(state)
    assert state.floors["snapshot"] == honest["snapshot"] + 1
    assert state.signed_time == NOW


def test_files_signed_with_replaced_keys_are_let_go(house: House) -> None:
    state = house.update()
    house.names["targets"] = ["release-3", "release-4"]
    house.root()
    step = take(refresh(state, NOW), house.files["2.root.json"])
    assert not complete(step.state)
    with refused("missing"):
        target(step.state, "releases/pump", NOW)
    with refused("signature"):
        house.update(state)  # still signed with the old keys
    house.list("targets")
    house.online()
    assert complete(house.update(state))


def test_code_signed_by_replaced_officers_is_let_go(house: House) -> None:
    state = house.update()
    house.names["code"] = ["code-3", "code-4"]
    house.list("targets")
    house.online()
    with refused("signature"):
        house.update(state)
    house.list("code")
    house.online()
    assert complete(house.update(state))


def test_new_release_keys_do_not_let_old_code_back(house: House) -> None:
    house.list("code")
    house.online()
    state = house.update()
    house.names["targets"] = ["release-3", "release-4"]
    house.root()
    house.list("targets")
    house.snapshot(code=(1, house.files["1.code.json"]))
    house.timestamp()
    with refused("version"):
        house.update(state)


# --- planted faults --------------------------------------------------------------------------------


def test_without_counting_signatures_a_forged_release_would_be_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.listed["targets"].append(thing("releases/evil", "release"))
    house.list("targets", signers=[key("online-1")])
    house.online()
    with refused("signature"):
        house.update()
    monkeypatch.setattr(trust, "verify", lambda *_: None)
    assert target(house.update(), "releases/evil", NOW)


def test_without_looking_at_the_clock_a_frozen_fleet_would_go_unnoticed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused("expired"):
        house.update(now=NOW + 30 * DAY)
    monkeypatch.setattr(trust, "_check_alive", lambda *_: None)
    assert complete(house.update(now=NOW + 30 * DAY))


def test_without_matching_digests_files_could_be_mixed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = house.list("code")
    house.versions["code"] -= 1
    house.listed["code"].append(thing("code/second", "code"))
    house.list("code")
    house.online()
    house.files["2.code.json"] = old
    with refused("mismatch"):
        house.update()
    monkeypatch.setattr(trust, "_matches", lambda *_: True)
    assert complete(house.update())


def test_without_looking_for_twins_one_person_could_sign_for_two(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets_ = publish.targets(1, house.listed["targets"], {r: house.ring(r) for r in ("code", "plans")}, NOW)
    assert targets_.signed.delegations
    role = targets_.signed.get_delegated_role("code")
    first = targets_.signed.delegations.keys[role.keyids[0]]
    targets_.signed.delegations.keys["twin"] = type(first).from_dict("twin", first.to_dict())
    role.keyids = [first.keyid, "twin"]
    house.put("targets", publish.sign(targets_, house.signers("targets")))
    code = json.loads(house.list("code", signers=[key("code-1")]))
    code["signatures"].append({"keyid": "twin", "sig": code["signatures"][0]["sig"]})
    house.put("code", json.dumps(code).encode())
    house.online()
    with refused("keys"):
        house.update()
    monkeypatch.setattr(
        parsing, "public_keys", lambda _name, role, _keys: {each: each.encode() for each in role.keyids}
    )
    assert complete(house.update())


def test_a_public_key_is_told_by_its_bytes(house: House) -> None:
    assert publish.root_rings(trust.root_of(house.begin()))["timestamp"].keys == (public_of(key("online-1")),)
