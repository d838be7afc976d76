"""At the API: a rollout is planned, begun, ordered and brought back; and who may."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import msgspec
import pytest

from reuna.adapters import passwords
from reuna.adapters.passwords import hashed
from reuna.adapters.tls import client_context
from reuna.core.errors import AccountProblem, PermissionDenied, RolloutProblem, RunNotFound, Unreachable
from reuna.core.rollout import RolloutSpec, Wave
from reuna.fleet.client import Operator
from reuna.fleet.people import Account
from reuna.fleet.trust import Ceremony
from reuna.trust.people import Person
from reuna.wire import digest_bytes
from reuna.wire.build import sha256
from tests.contract.operator_api import Served, served
from tests.releases import release, target

PASSWORD = "seven green boats sail"
DATA = release(4)


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 64)
        passwords._nobody.cache_clear()
        yield
    passwords._nobody.cache_clear()


def with_release(folder: Path, api: Served) -> Served:
    """One release is signed for every node; three people have accounts."""
    ceremony = Ceremony(folder / "trust", time.time(), lambda _path: b"")
    (ceremony.folder / "targets").mkdir(exist_ok=True)
    (ceremony.folder / "targets" / digest_bytes(DATA)).write_bytes(DATA)
    ceremony.restage("targets", [*ceremony.listed("targets"), target(DATA, 4)])
    assert ceremony.settle() == {}
    for name, *roles in (("anna", "engineer"), ("ben", "approver"), ("vera", "viewer")):
        api.people.add(Person(name, frozenset(roles), hashed(PASSWORD)))
    return api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "api") as running:
        yield with_release(tmp_path / "api", running)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "api", ("rollouts.start",)) as running:
        yield with_release(tmp_path / "api", running)


def operator(api: Served) -> Operator:
    tls = client_context(api.operator.certificate, api.operator.key, api.operator.authority)
    return Operator("127.0.0.1", api.port, tls)


def account(api: Served, name: str) -> Account:
    root = api.operator.authority.read_text()
    token = Account("127.0.0.1", api.people_port, root).sign_in(name, PASSWORD)["token"]
    return Account("127.0.0.1", api.people_port, root, token)


def spec(name: str = "ro-4", **more: object) -> RolloutSpec:
    waves = (Wave("press-1"), Wave("all"))
    return msgspec.structs.replace(RolloutSpec(name, "pumps", 4, sha256(DATA), waves), **more)


def test_a_plan_says_who_is_in_which_wave_and_begins_nothing(api: Served) -> None:
    found = operator(api).plan_rollout(spec())
    assert [wave["nodes"] for wave in found["waves"]] == [["press-1"], ["e-1", "press-2"]]
    assert operator(api).rollouts() == []


def test_a_rollout_is_begun_listed_ordered_and_aborted_by_a_rollback(api: Served) -> None:
    asks = operator(api)
    assert asks.start_rollout(spec()) == ""
    assert [(each["rollout"], each["phase"]) for each in asks.rollouts()] == [("ro-4", "planned")]
    asks.order_rollout("ro-4", "pause")
    assert asks.roll_back("pumps", "back-1") == {"rollout": "ro-4", "did": "aborted"}
    orders = [event["fields"] for event in asks.rollout_events("ro-4")]
    assert [(each["order"], each["by"]) for each in orders] == [("pause", "operator"), ("abort", "operator")]
    assert asks.rollout("ro-4")["mark"] > 0


def test_what_is_not_there_is_said(api: Served) -> None:
    asks = operator(api)
    for name in ("nobody", "no body?", "../runs/r-1"):
        with pytest.raises(RunNotFound):
            asks.rollout(name)
    with pytest.raises(RunNotFound):
        asks.order_rollout("nobody", "abort")
    with pytest.raises(RunNotFound):
        asks.roll_back("pumps", "back-1")
    with pytest.raises(RolloutProblem, match="another digest"):
        asks.start_rollout(spec(sha256="0" * 64))
    for body in (b"", b"{}", b'{"order": "stop"}'):
        with pytest.raises(AccountProblem):
            asks._call("POST", "/v1/rollouts/ro-4", body)


def test_a_rollout_is_no_run_that_somebody_could_stop_half_way(api: Served) -> None:
    operator(api).start_rollout(spec())
    for ask in (operator(api).stop, operator(api).status, operator(api).asked, operator(api).resume):
        with pytest.raises(RunNotFound):
            ask("rollout:ro-4")
    assert [each["run"] for each in operator(api).runs()] == []


def test_only_engineers_begin_and_order_and_everybody_may_look(api: Served) -> None:
    assert json.loads(account(api, "anna")._call("POST", "/v1/rollouts", msgspec.json.encode(spec()))) == {}
    for path in ("/v1/rollouts", "/v1/rollout-plans"):
        with pytest.raises(PermissionDenied):
            account(api, "vera")._call("POST", path, msgspec.json.encode(spec("other")))
    with pytest.raises(PermissionDenied):
        account(api, "vera")._call("POST", "/v1/rollouts/ro-4", b'{"order": "abort"}')
    with pytest.raises(PermissionDenied):
        account(api, "ben")._call("POST", "/v1/rollbacks", b'{"project": "pumps", "rollout": "b"}')
    assert json.loads(account(api, "vera")._call("GET", "/v1/rollouts/ro-4"))["phase"] == "planned"


def test_a_second_person_agrees_before_it_begins_and_nobody_is_asked_to_stop_one(strict: Served) -> None:
    number = operator(strict).start_rollout(spec())
    assert number
    assert operator(strict).rollouts() == []
    ben = account(strict, "ben")
    proposal = next(each for each in ben.proposals() if each["id"] == number)
    assert proposal["summary"] == f"rollout ro-4: pumps 4, {sha256(DATA)[:12]}, to press-1, all"
    ben.decide(proposal, approve=True)
    assert [each["rollout"] for each in operator(strict).rollouts()] == ["ro-4"]
    operator(strict).order_rollout("ro-4", "abort")


def test_a_project_whose_releases_need_two_people_needs_two_for_a_rollout(api: Served) -> None:
    assert operator(api).start_rollout(spec(approval=True))
    assert operator(api).rollouts() == []
    with pytest.raises(RolloutProblem):  # what cannot be is asked nobody
        operator(api).start_rollout(spec(version=5, approval=True))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[HTTPSConnection]:
    """Connections as they are opened."""
    opened: list[HTTPSConnection] = []
    connect = HTTPSConnection.connect

    def counted(connection: HTTPSConnection) -> None:
        opened.append(connection)
        connect(connection)

    monkeypatch.setattr(HTTPSConnection, "connect", counted)
    return opened


def test_who_asks_again_and_again_does_so_over_one_connection(
    api: Served, lines: list[HTTPSConnection]
) -> None:
    with operator(api).staying() as asking:
        assert [asking.rollouts() for _ in range(3)] == [[], [], []]
        with pytest.raises(RunNotFound):
            asking.rollout("nobody")
        asking.rollouts()
    assert len(lines) == 1
    assert lines[0].sock is None


def test_a_connection_that_was_cut_is_said_once_and_opened_again(
    api: Served, lines: list[HTTPSConnection]
) -> None:
    with operator(api).staying() as asking:
        asking.rollouts()
        lines[0].sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Unreachable):
            asking.rollouts()
        assert asking.rollouts() == []
    assert len(lines) == 2
