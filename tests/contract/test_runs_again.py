"""At the API: runs from builds that are kept, runs that go on, runs that are tried again; and who may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters import passwords
from reuna.adapters.passwords import hashed
from reuna.core.errors import BlobNotFound, Corrupted, PermissionDenied, RunNotFound, RunProblem, Untrusted
from reuna.core.records import Asking, Encoding, Grid, RunSpec
from reuna.fleet.build import make
from reuna.fleet.built import provenance_of, write
from reuna.fleet.kept import push
from reuna.fleet.people import Account
from reuna.trust.people import Person
from reuna.wire import digest_bytes
from reuna.wire.build import Build
from tests.contract.operator_api import Served, served
from tests.repositories import repository

PASSWORD = "seven green boats sail"
MODEL, OTHER = b"a first model", b"another one"


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 64)
        passwords._nobody.cache_clear()
        yield
    passwords._nobody.cache_clear()


def with_people(api: Served) -> Served:
    for name, *roles in (("anna", "engineer"), ("ben", "approver"), ("vera", "viewer")):
        api.people.add(Person(name, frozenset(roles), hashed(PASSWORD)))
    return api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "api") as running:
        yield with_people(running)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "api", ("runs.submit",)) as running:
        yield with_people(running)


def account(api: Served, name: str) -> Account:
    root = api.operator.authority.read_text()
    token = Account("127.0.0.1", api.people_port, root).sign_in(name, PASSWORD)["token"]
    return Account("127.0.0.1", api.people_port, root, token)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(make(repository(tmp_path / "pump")), tmp_path / "x.tar")
    return tmp_path / "x.tar"


def built(file: Path) -> Build:
    from reuna.fleet.built import read

    return read(file)


def spec(run: str = "r-2", **more: Any) -> RunSpec:
    plain = RunSpec(
        run=run,
        project="pump",
        task="fault-classification",
        metric="all",
        rounds=3,
        strategy="fedavg",
        fogs={"north": ("edge-1",)},
        model=digest_bytes(MODEL),
        model_size=len(MODEL),
        params=3,
        bundle=digest_bytes(OTHER),
        bundle_size=len(OTHER),
    )
    return msgspec.structs.replace(plain, **more)


def from_build(file: Path, run: str = "r-2", **more: Any) -> RunSpec:
    """What `reuna run` asks for, from what is in the build."""
    found = built(file)
    plan = msgspec.json.decode(found.parts["plan.json"])
    same = ("task", "metric", "strategy", "rounds", "seed", "deadline_s", "quorum", "max_weight", "local")
    asked = {name: plan[name] for name in same} | {"settings": plan["settings"], "project": plan["name"]}
    asked |= {
        "grid": msgspec.convert(plan["grid"], Grid),
        "encoding": msgspec.convert(plan["encoding"], Encoding),
        "asking": msgspec.convert(plan["asking"], Asking),
    }
    code = found.parts["code.zip"]
    return spec(run, bundle=digest_bytes(code), bundle_size=len(code), build=found.digest, **asked, **more)


def test_a_run_names_only_a_build_that_was_handed_over_and_is_made_of_it(api: Served, file: Path) -> None:
    anna = account(api, "anna")
    anna.put_blob(MODEL)
    anna.put_blob(built(file).parts["code.zip"])
    with pytest.raises(BlobNotFound, match="keeps no build"):
        anna.submit(from_build(file))
    push(anna, file)
    for wrong in ({"rounds": 4}, {"settings": {"rate": 9.0}}, {"seed": 5}, {"project": "fan"}):
        with pytest.raises(RunProblem, match=f"another {next(iter(wrong))}"):
            anna.submit(msgspec.structs.replace(from_build(file), **wrong))
    anna.put_blob(OTHER)
    with pytest.raises(RunProblem, match="another bundle"):
        anna.submit(msgspec.structs.replace(from_build(file), bundle=digest_bytes(OTHER)))
    assert list(api.journal.runs_) == ["r-1"]
    anna.submit(from_build(file))
    assert anna.asked("r-2") == from_build(file)


def test_a_viewer_sees_builds_and_hands_over_none(api: Served, file: Path) -> None:
    anna, vera = account(api, "anna"), account(api, "vera")
    digest = push(anna, file)
    assert [each.digest for each in vera.builds()] == [digest]
    assert vera.get_build(digest) == file.read_bytes()
    assert vera.get_provenance(digest) == provenance_of(file).read_bytes()
    for refused in (
        lambda: vera.put_build(digest, file.read_bytes()),
        lambda: vera.put_provenance(digest, b""),
        lambda: vera.resume("r-1"),
        lambda: vera.retry("r-1", "r-9"),
    ):
        with pytest.raises(PermissionDenied):
            refused()


def test_a_build_that_is_not_what_it_is_called_is_refused(api: Served, file: Path) -> None:
    anna = account(api, "anna")
    with pytest.raises(Corrupted):
        anna.put_build("ab" * 32, file.read_bytes())
    with pytest.raises(Untrusted):
        anna.put_build(built(file).digest, file.read_bytes()[:-1024])
    with pytest.raises(BlobNotFound):
        anna.put_provenance(built(file).digest, provenance_of(file).read_bytes())
    assert anna.builds() == []


def begun(api: Served, who: Account, run: str = "r-2", state: str = "cancelled") -> None:
    who.put_blob(MODEL)
    who.put_blob(OTHER)
    who.submit(spec(run))
    api.journal.states[run] = state


def test_a_run_that_ended_early_goes_on_and_one_that_runs_is_left_alone(api: Served) -> None:
    anna = account(api, "anna")
    begun(api, anna)
    assert anna.resume("r-2") == ""
    assert anna.status("r-2")["state"] == "running"
    assert anna.resume("r-2") == ""
    api.journal.states["r-2"] = "done"
    with pytest.raises(RunProblem, match="is done"):
        anna.resume("r-2")
    with pytest.raises(RunNotFound):
        anna.resume("r-9")


@pytest.mark.parametrize("state", ["cancelled", "failed", "done"])
def test_a_retry_has_the_inputs_of_the_run_before_and_names_it(api: Served, state: str) -> None:
    anna = account(api, "anna")
    begun(api, anna, state=state)
    assert anna.retry("r-2", "r-3") == ""
    assert anna.asked("r-3") == spec("r-3", retries="r-2")
    assert anna.retry("r-2", "r-3") == "", "who is not sure asks again"
    assert len(anna.runs()) == 2


def test_what_goes_on_or_is_not_there_is_not_retried(api: Served) -> None:
    anna = account(api, "anna")
    begun(api, anna, state="running")
    with pytest.raises(RunProblem, match="goes on"):
        anna.retry("r-2", "r-3")
    with pytest.raises(RunNotFound):
        anna.retry("r-9", "r-3")


def test_nobody_calls_a_run_with_other_inputs_a_retry(api: Served) -> None:
    anna = account(api, "anna")
    begun(api, anna)
    for wrong in ({"rounds": 4}, {"seed": 2}, {"fogs": {"north": ("edge-2",)}}, {"quorum": 0.5}):
        with pytest.raises(RunProblem, match=f"another {next(iter(wrong))}"):
            anna.submit(spec("r-3", retries="r-2", **wrong))
    with pytest.raises(RunNotFound):
        anna.submit(spec("r-3", retries="r-9"))
    assert "r-3" not in api.journal.runs_


def test_going_on_and_trying_again_wait_for_a_second_person_where_beginning_does(strict: Served) -> None:
    anna, ben = account(strict, "anna"), account(strict, "ben")
    anna.put_blob(MODEL)
    anna.put_blob(OTHER)
    strict.journal.runs_["r-2"], strict.journal.states["r-2"] = msgspec.json.encode(spec()).decode(), "failed"

    def agreed(number: str) -> None:
        waiting = next(each for each in ben.proposals() if each["id"] == number)
        assert "r-2" in waiting["summary"]
        ben.decide(waiting, True)

    with pytest.raises(RunNotFound):
        anna.resume("r-9")
    retried, resumed = anna.retry("r-2", "r-3"), anna.resume("r-2")
    assert len(ben.proposals()) == 2, "what is not there needs nobody's word"
    assert "r-3" not in strict.journal.runs_
    assert anna.status("r-2")["state"] == "failed"
    agreed(retried)
    assert anna.asked("r-3") == spec("r-3", retries="r-2")
    agreed(resumed)
    assert anna.status("r-2")["state"] == "running"
