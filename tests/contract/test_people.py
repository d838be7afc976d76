"""People at the API over real TLS: signing in, roles, a second person, the trail, and what browsers may not do."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from reuna.adapters import passwords
from reuna.adapters.operator_api.guard import COOKIE, HEADERS
from reuna.adapters.passwords import hashed
from reuna.core.errors import (
    AccountProblem,
    BlobNotFound,
    NotReleased,
    NotSignedIn,
    PermissionDenied,
    PlanError,
    ReunaError,
    RunFailed,
    RunNotFound,
    TooMany,
    Unreachable,
)
from reuna.core.records import Grid, ReleaseAsked, RunSpec
from reuna.core.trigger import Trigger
from reuna.fleet.allowed import of_run
from reuna.fleet.approval import approve_release
from reuna.fleet.layout import Fleet
from reuna.fleet.people import Account
from reuna.trust.people import Person
from reuna.wire import digest_bytes
from tests.contract.operator_api import Served, served

PASSWORD = "seven green boats sail"


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 64)
        passwords._nobody.cache_clear()
        yield
    passwords._nobody.cache_clear()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, ("runs.submit", "runs.stop")) as running:
        for name, *roles in (
            ("anna", "engineer"),
            ("ben", "approver", "engineer"),
            ("vera", "viewer"),
            ("ada", "admin"),
        ):
            running.people.add(Person(name, frozenset(roles), hashed(PASSWORD)))
        yield running


def account(api: Served, name: str = "", password: str = PASSWORD) -> Account:
    root = api.operator.authority.read_text()
    if not name:
        return Account("127.0.0.1", api.people_port, root)
    token = Account("127.0.0.1", api.people_port, root).sign_in(name, password)["token"]
    return Account("127.0.0.1", api.people_port, root, token)


def ask(api: Served, method: str, path: str, body: str = "", **headers: str) -> http.client.HTTPResponse:
    with line(api) as connection:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        answer.read()
    return answer


def line(api: Served) -> closing[http.client.HTTPSConnection]:
    context = ssl.create_default_context(cafile=str(api.operator.authority))
    return closing(http.client.HTTPSConnection("127.0.0.1", api.people_port, context=context, timeout=10))


def spec() -> RunSpec:
    model = digest_bytes(b"a model")
    return RunSpec(
        run="r-20261123-100000-abcd", project="pumps", task="train", metric="all", rounds=2, strategy="fedavg",
        fogs={"fog-1": ("edge-1",)}, model=model, model_size=7, params=1, bundle=model, bundle_size=7, seed=1,
        grid=Grid(32, -20), max_weight=100, deadline_s=5.0, quorum=1.0, settings={}, local=False,
    )  # fmt: skip


def test_without_a_session_nothing_is_shown(api: Served) -> None:
    for call in (account(api).who, account(api).nodes, lambda: account(api).audit(0)):
        with pytest.raises(NotSignedIn):
            call()


def test_who_signed_in_does_what_their_roles_say_and_no_more(api: Served) -> None:
    vera, ada = account(api, "vera"), account(api, "ada")
    assert vera.who()["roles"] == ["viewer"]
    assert vera.nodes() == dict.fromkeys(("fog-1", "e-1", "press-1", "press-2"), 1.0)
    assert vera.releases()["releases"] == []
    for forbidden in (lambda: vera.submit(spec()), lambda: vera.put_blob(b"x"), lambda: vera.audit(0)):
        with pytest.raises(PermissionDenied):
            forbidden()
    with pytest.raises(PermissionDenied):
        ada.submit(spec())
    denied = [each for each in ada.audit(0) if each["verdict"] == "denied"]
    assert [(each["who"], each["what"]) for each in denied] == [
        ("vera", "runs.submit"), ("vera", "models.write"), ("vera", "audit.read"), ("ada", "runs.submit"),
    ]  # fmt: skip


def test_wrong_names_and_wrong_passwords_are_told_apart_by_nobody_and_wait(api: Served) -> None:
    said = set()
    for name in ("anna", "nobody", "../etc", "anna"):
        with pytest.raises(NotSignedIn) as refused:
            account(api, name, "wrong password")
        said.add(refused.value.message)
    assert len(said) == 1
    with pytest.raises(TooMany):
        account(api, "anna", "wrong password")


def test_a_session_ends_at_sign_out_and_when_the_account_changes(api: Served) -> None:
    anna, again = account(api, "anna"), account(api, "anna")
    anna.sign_out()
    with pytest.raises(NotSignedIn):
        anna.who()
    assert again.who()["name"] == "anna"
    api.people.change(Person("anna", frozenset({"viewer"}), hashed(PASSWORD), disabled=True))
    with pytest.raises(NotSignedIn):
        again.who()
    with pytest.raises(NotSignedIn):
        account(api, "anna")


def test_a_run_waits_for_a_second_person_and_then_is_the_one_that_was_proposed(
    api: Served, tmp_path: Path
) -> None:
    anna, ben, ada = account(api, "anna"), account(api, "ben"), account(api, "ada")
    number = anna.submit(spec())
    (waiting,) = ben.proposals()
    assert (waiting["id"], waiting["by"], waiting["waiting"]) == (number, "anna", True)
    with pytest.raises(PermissionDenied):
        anna.decide(waiting, True)
    with pytest.raises(PermissionDenied):
        ada.decide(waiting, True)
    with pytest.raises(Exception, match="not what you have seen"):
        ben.decide({**waiting, "digest": "0" * 64}, True)
    assert ben.decide(waiting, True)["decided_by"] == "ben"
    assert anna.status(spec().run)["state"] == "running"
    told = of_run(Fleet("far", tmp_path, ()), anna, spec())["approvals"]["run"]
    assert (told["asked_by"], told["approved_by"], told["proposal"]) == ("anna", "ben", number)
    with pytest.raises(Exception, match="was approved by ben"):
        ben.decide(waiting, False)


def test_a_check_needs_an_engineer_and_no_second_person_for_it_changes_nothing(api: Served) -> None:
    asked = msgspec.structs.replace(spec(), run="c-1", deadline_s=1.0)
    with pytest.raises(PermissionDenied):
        account(api, "vera").check(asked)
    anna = account(api, "anna")
    anna.check(asked)
    assert anna.proposals() == []
    found = anna.checked("c-1")
    assert found["edges"] == ["edge-1"]
    assert account(api, "vera").checked("c-1")["state"] in ("queued", "asking", "done")
    with pytest.raises(RunNotFound, match="no check 'c-2'"):
        anna.checked("c-2")
    with pytest.raises(PlanError, match="no name of a check"):
        anna.check(spec())
    with pytest.raises(BlobNotFound):
        anna.check(msgspec.structs.replace(asked, run="c-3", bundle="0" * 64))
    said = [(each["who"], each["verdict"]) for each in api.reception.audit(0) if each["what"] == "runs.check"]
    assert said[:2] == [("vera", "denied"), ("anna", "allowed")]


def test_a_cloud_that_does_not_know_a_route_is_said_to_be_older(api: Served) -> None:
    with pytest.raises(Unreachable, match="does not know what it is asked") as raised:
        account(api, "anna")._call("POST", "/v1/no-such-thing")
    assert "older version" in raised.value.next_step


def test_a_run_is_stopped_only_when_a_second_person_agrees(api: Served) -> None:
    anna, ben = account(api, "anna"), account(api, "ben")
    anna.submit(spec())
    ben.decide(ben.proposals()[0], True)
    number = anna.stop(spec().run)
    waiting = next(each for each in ben.proposals() if each["id"] == number)
    assert (waiting["action"], waiting["waiting"]) == ("runs.stop", True)
    assert anna.status(spec().run)["state"] == "running"
    assert ben.decide(waiting, True)["decided"] == "approved"
    assert [e["target"] for e in api.reception.audit(0) if e["verdict"] == "proposed"][-1] == waiting[
        "summary"
    ]
    with pytest.raises(RunNotFound):
        anna.stop("r-none")
    assert len(ben.proposals()) == 2, "what is not there needs nobody's word"


def test_nobody_approves_their_own_also_with_both_roles(api: Served) -> None:
    ben = account(api, "ben")
    ben.submit(spec())
    with pytest.raises(PermissionDenied, match="own proposal"):
        ben.decide(ben.proposals()[0], True)


def test_a_cookie_alone_changes_nothing(api: Served) -> None:
    """What a page elsewhere could make a browser send."""
    answer = ask(api, "POST", "/v1/session", json.dumps({"name": "anna", "password": PASSWORD}))
    cookie = answer.headers["Set-Cookie"]
    assert all(word in cookie for word in (f"{COOKIE}=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"))
    kept = cookie.partition(";")[0]
    own = f"https://127.0.0.1:{api.people_port}"
    with line(api) as connection:
        connection.request("GET", "/v1/session", headers={"Cookie": kept})
        csrf = json.loads(connection.getresponse().read())["csrf"]
    assert ask(api, "DELETE", "/v1/session", Cookie=kept).status == 403
    assert ask(api, "DELETE", "/v1/session", Cookie=kept, X_CSRF_Token="x").status == 403
    assert (
        ask(api, "DELETE", "/v1/session", Cookie=kept, X_CSRF_Token=csrf, Origin="https://evil").status == 403
    )
    assert ask(api, "DELETE", "/v1/session", Cookie=kept, X_CSRF_Token=csrf, Origin=own).status == 200
    assert ask(api, "GET", "/v1/session", Cookie=kept).status == 401


def test_foreign_pages_dead_sessions_and_floods_stand_in_the_trail(api: Served) -> None:
    answer = ask(api, "POST", "/v1/session", json.dumps({"name": "anna", "password": PASSWORD}))
    kept = answer.headers["Set-Cookie"].partition(";")[0]
    assert ask(api, "DELETE", "/v1/session", Cookie=kept).status == 403
    for _ in range(20):
        assert ask(api, "GET", "/v1/runs", Authorization="Bearer stolen-and-over").status == 401
    assert ask(api, "POST", "/v1/runs").status == 401
    with line(api) as connection:
        status = 0
        while status != 429:
            connection.request("GET", "/v1/session")
            answer = connection.getresponse()
            answer.read()
            status = answer.status
    said = [(e["who"], e["what"], e["why"]) for e in api.reception.audit(0) if e["verdict"] == "denied"]
    assert ("anna", "self", "this request did not come from our own page") in said
    dead = [each for each in said if each[1:] == ("runs.read", "this session is over, or never was")]
    assert len(dead) == 9, "the first eight times, then the sixteenth"
    assert ("-", "runs.submit", "nobody is signed in here") in said
    assert ("-", "self", "too many requests") in said


def test_every_answer_has_the_headers_that_keep_browsers_narrow(api: Served) -> None:
    for method, path in (
        ("GET", "/v1/session"),
        ("GET", "/nowhere"),
        ("POST", "/v1/session"),
        ("PATCH", "/v1/runs"),
    ):
        answer = ask(api, method, path)
        assert answer.status >= 400
        assert all(answer.headers[name] == value for name, value in HEADERS.items())


def test_an_address_that_asks_without_end_is_told_to_wait(api: Served) -> None:
    found = set()
    with line(api) as connection:
        while 429 not in found and len(found) < 3:
            connection.request("GET", "/v1/session")
            answer = connection.getresponse()
            answer.read()
            found.add(answer.status)
    assert found == {401, 429}


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"name": 1, "password": "x"}', "x" * 20_000, '{"name": "\udcff"}']
)
def test_a_sign_in_that_cannot_be_read_is_one_clear_message(api: Served, body: str) -> None:
    assert (
        ask(api, "POST", "/v1/session", body.encode("utf-8", "surrogateescape").decode("latin-1")).status
        == 422
    )


def test_secrets_stand_in_no_log_no_trail_and_no_file(
    api: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    anna = account(api, "anna")
    token, csrf = anna._headers["Authorization"].split()[1], anna.who()["csrf"]
    with pytest.raises(NotSignedIn):
        account(api, "anna", "another secret password")
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("*") if path.is_file())
    for secret in (token, PASSWORD, "another secret password"):
        assert secret not in caplog.text
        assert secret.encode() not in kept
    assert csrf not in caplog.text


async def test_a_run_that_was_rejected_is_no_run(api: Served) -> None:
    from reuna.fleet.session import agreed

    anna, ben = account(api, "anna"), account(api, "ben")
    number = anna.submit(spec())
    ben.decide(ben.proposals()[0], False)
    with pytest.raises(RunFailed, match="rejected by ben"):
        await agreed(anna, number)


ASKED = ReleaseAsked("pumps", 3, "r-1", "a" * 64, "every gate holds at every site")


def nobody(_id: str) -> None:
    """Nobody is told."""


def allow(api: Served, who: str, approve: bool = True) -> None:
    second = account(api, who)
    (waiting,) = (each for each in second.proposals() if each["waiting"])
    second.decide(waiting, approve)


def test_a_release_waits_for_a_second_person_and_is_asked_for_once(api: Served) -> None:
    anna, heard = account(api, "anna"), list[str]()
    for _ in range(2):
        with pytest.raises(NotReleased, match="pumps 3 waits for a second person") as waits:
            approve_release(anna, ASKED, 0, heard.append)
        assert f"reuna proposals approve {heard[0]}" in waits.value.next_step
    assert heard[0] == heard[1]
    (proposal,) = anna.proposals()
    assert proposal["summary"] == f"release pumps 3 of r-1, {'a' * 12}: every gate holds at every site"
    allow(api, "ben")
    found = approve_release(anna, ASKED, 0, heard.append)
    assert (found["by"], found["decided_by"], len(heard)) == ("anna", "ben", 2)


def test_nobody_allows_their_own_release(api: Served) -> None:
    with pytest.raises(NotReleased):
        approve_release(account(api, "ben"), ASKED, 0, nobody)
    with pytest.raises(PermissionDenied, match="own proposal"):
        allow(api, "ben")


def test_a_release_of_other_bytes_needs_another_word(api: Served) -> None:
    anna = account(api, "anna")
    with pytest.raises(NotReleased):
        approve_release(anna, ASKED, 0, nobody)
    allow(api, "ben")
    with pytest.raises(NotReleased, match="waits for a second person"):
        approve_release(anna, msgspec.structs.replace(ASKED, digest="b" * 64), 0, nobody)


def test_a_release_that_was_rejected_is_not_made(api: Served) -> None:
    anna = account(api, "anna")
    with pytest.raises(NotReleased):
        approve_release(anna, ASKED, 0, nobody)
    allow(api, "ben", approve=False)
    with pytest.raises(NotReleased, match="was rejected by ben"):
        approve_release(anna, ASKED, 0, nobody)


def test_who_waits_goes_on_when_somebody_agrees(api: Served) -> None:
    def agree(_id: str) -> None:
        allow(api, "ben")

    assert approve_release(account(api, "anna"), ASKED, 60, agree)["decided"] == "approved"


@pytest.mark.parametrize("who", ["vera", "ada"])
def test_only_engineers_ask_for_a_release(api: Served, who: str) -> None:
    with pytest.raises(PermissionDenied):
        approve_release(account(api, who), ASKED, 0, nobody)


@pytest.mark.parametrize("changed", [{"digest": "a"}, {"gates": "fine\x1b[2J"}, {"version": 0}, {"more": 1}])
def test_what_is_no_release_is_not_proposed(api: Served, changed: dict[str, object]) -> None:
    anna = account(api, "anna")
    words = json.dumps({**msgspec.to_builtins(ASKED), **changed}).encode()
    with pytest.raises(ReunaError, match="release"):
        anna._call("POST", "/v1/releases", words)
    assert anna.proposals() == []


# --- runs by the clock ------------------------------------------------------------------------------

NIGHTLY = Trigger("nightly", "r-20261123-100000-abcd", "02:30")


def test_a_run_is_begun_again_by_the_clock_for_whoever_may_begin_one(tmp_path: Path) -> None:
    with served(tmp_path) as api:
        api.people.add(Person("vera", frozenset({"viewer"}), hashed(PASSWORD)))
        api.people.add(Person("anna", frozenset({"engineer"}), hashed(PASSWORD)))
        vera, anna = account(api, "vera"), account(api, "anna")
        with pytest.raises(RunNotFound):
            anna.put_trigger(NIGHTLY)
        anna.put_blob(b"a model")
        anna.submit(spec())
        anna.put_trigger(NIGHTLY)
        (kept,) = vera.triggers()
        assert (kept["name"], kept["again"], kept["at"], kept["last"]) == (
            "nightly",
            spec().run,
            "02:30",
            None,
        )
        assert kept["next"] % 86_400 == 2.5 * 3600
        for forbidden in (lambda: vera.put_trigger(NIGHTLY), lambda: vera.drop_trigger("nightly")):
            with pytest.raises(PermissionDenied):
                forbidden()
        with pytest.raises(PlanError):
            anna.put_trigger(msgspec.structs.replace(NIGHTLY, days=("so",)))
        with pytest.raises(AccountProblem, match="another name than its path"):
            anna._call("PUT", "/v1/triggers/other", msgspec.json.encode(NIGHTLY))
        anna.drop_trigger("nightly")
        assert vera.triggers() == []
        with pytest.raises(RunNotFound):
            anna.drop_trigger("nightly")


def test_where_two_people_agree_to_a_run_the_clock_begins_none(api: Served) -> None:
    with pytest.raises(AccountProblem, match="a second person agrees to each run"):
        account(api, "anna").put_trigger(NIGHTLY)
    assert account(api, "anna").triggers() == []


MOVED = Trigger("moved", spec().run, on="drift", kinds=("sensor",), cooldown_s=60.0, approval=True, for_s=0.0)


def test_what_a_trigger_asks_for_is_begun_by_the_cloud_once_a_second_person_agrees(api: Served) -> None:
    anna, ben = account(api, "anna"), account(api, "ben")
    anna.submit(spec())
    ben.decide(ben.proposals()[0], True)
    anna.put_trigger(MOVED)
    for _ in range(2):
        api.look()
    (waiting,) = (each for each in ben.proposals() if each["waiting"])
    (said,) = anna.triggers()
    assert waiting["summary"].startswith(
        f"run {said['run']} of pumps, drift: one signal moved at e-1 alone, perhaps its sensor: oil: 2 rounds"
    )
    assert (waiting["action"], waiting["by"], said["proposal"]) == (
        "runs.begin",
        "trigger moved",
        waiting["id"],
    )
    assert said["run"] not in api.journal.runs_
    ben.decide(waiting, True)
    begun = msgspec.json.decode(api.journal.runs_[said["run"]], type=RunSpec)
    assert (begun.why, begun.fogs) == (
        "drift: one signal moved at e-1 alone, perhaps its sensor: oil",
        api.coordinator.fogs(),
    )
    assert [each.get("why") for each in anna.runs()].count(begun.why) == 1


def test_a_second_person_who_says_no_to_a_trigger_lets_no_run_begin(api: Served) -> None:
    anna, ben = account(api, "anna"), account(api, "ben")
    anna.submit(spec())
    ben.decide(ben.proposals()[0], True)
    anna.put_trigger(MOVED)
    api.look()
    ben.decide(next(each for each in ben.proposals() if each["waiting"]), False)
    api.look()
    assert len(ben.proposals()) == 2
    assert not [each for each in anna.runs() if each.get("why")]
