"""Signing in at an identity provider, over real TLS on every line: who comes in, and every word that does not count."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reuna.core.errors import NotSignedIn, ReunaError, SettingsError, Unreachable, UserError
from reuna.fleet.people import Account, Office, at_provider
from reuna.trust.people import Person
from tests.contract.operator_api import Served, served
from tests.contract.provider import CLIENT, IdentityProvider, answers_of, said


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[IdentityProvider]:
    with IdentityProvider(tmp_path) as running:
        yield running


@pytest.fixture
def api(tmp_path: Path, provider: IdentityProvider) -> Iterator[Served]:
    with served(tmp_path, provider=provider) as running:
        yield running


def account(api: Served, token: str = "") -> Account:
    return Account("127.0.0.1", api.people_port, api.operator.authority.read_text(), token)


def sign_in(api: Served, provider: IdentityProvider) -> dict[str, Any]:
    """All of it, as the command does; the provider's page is visited by another thread, as by a browser."""
    visits: list[threading.Thread] = []

    def show(page: str) -> None:
        visits.append(threading.Thread(target=provider.visit, args=(page,)))
        visits[0].start()

    try:
        return at_provider(account(api), show, patience_s=20.0)
    finally:
        for visit in visits:
            visit.join()


def test_somebody_comes_in_with_the_roles_of_their_groups(api: Served, provider: IdentityProvider) -> None:
    found = sign_in(api, provider)
    assert (found["name"], found["roles"]) == ("anna", ["engineer", "viewer"])
    assert account(api, found["token"]).who()["name"] == "anna"
    assert [each["signs_in"] for each in api.reception.people()] == ["identity provider"]


def test_the_account_follows_groups_and_person_not_the_name(api: Served, provider: IdentityProvider) -> None:
    before = account(api, sign_in(api, provider)["token"])
    provider.claims |= {"groups": ["plant-it"], "preferred_username": "anna.married"}
    found = sign_in(api, provider)
    assert (found["name"], found["roles"]) == ("anna", ["admin"])
    with pytest.raises(NotSignedIn):
        before.who()  # its roles are gone
    provider.claims |= {"sub": "18", "preferred_username": "anna"}
    with pytest.raises(NotSignedIn, match="somebody else's"):
        sign_in(api, provider)


def test_an_account_with_a_password_is_nobody_elses(api: Served, provider: IdentityProvider) -> None:
    api.people.add(Person("anna", frozenset({"admin"}), "$argon2id$…"))
    with pytest.raises(NotSignedIn, match="somebody else's"):
        sign_in(api, provider)


def test_somebody_of_the_provider_has_no_password_here(
    api: Served, provider: IdentityProvider, tmp_path: Path
) -> None:
    sign_in(api, provider)
    for password in ("", "x" * 20):
        with pytest.raises(NotSignedIn):
            account(api).sign_in("anna", password)
    office = Office({"folder": str(tmp_path)})
    for change in ({"password": "seven green boats sail"}, {"roles": ["admin"]}):
        with pytest.raises(UserError, match="signs in at the identity provider"):
            office.change("anna", **change)  # type: ignore[arg-type]
    office.change("anna", disabled=True)
    office.close()
    with pytest.raises(NotSignedIn, match="disabled"):
        sign_in(api, provider)


def test_every_sign_in_is_in_the_trail_and_no_secret_is(
    api: Served, provider: IdentityProvider, tmp_path: Path
) -> None:
    found = sign_in(api, provider)
    provider.claims |= {"groups": []}
    with pytest.raises(NotSignedIn):
        sign_in(api, provider)
    trail = [(each["who"], each["via"], each["what"], each["verdict"]) for each in api.reception.audit(0)]
    assert trail == [
        ("anna", "oidc", "people.add", "allowed"),
        ("anna", "oidc", "session.begin", "allowed"),
        ("unknown", "oidc", "session.begin", "denied"),
    ]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("*") if path.is_file())
    assert found["token"].encode() not in kept


def other_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": provider.kid})


def unsigned(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, None, "none", headers={"kid": provider.kid})  # type: ignore[arg-type]


def with_the_public_key(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    """HS256 with what everybody knows, RFC 8725, 2.1; by hand, since the library refuses to."""
    public = provider.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parts = ({"alg": "HS256", "typ": "JWT", "kid": provider.kid}, claims)
    said = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(public, said, "sha256")
    return (said + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def of_a_key_not_shown(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, provider.key, "ES256", headers={"kid": "k-2"})


def changed(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    head, body, signature = provider.signed(claims).split(".")
    more = {**json.loads(base64.urlsafe_b64decode(body + "==")), "groups": ["plant-it"]}
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(more).encode()).rstrip(b'=').decode()}.{signature}"


def cut(provider: IdentityProvider, claims: dict[str, Any]) -> str:
    return provider.signed(claims)[:-40]


def no_token(_provider: IdentityProvider, _claims: dict[str, Any]) -> str:
    return "not.a.token"


FORGED: tuple[Callable[[IdentityProvider, dict[str, Any]], str], ...] = (
    other_key, unsigned, with_the_public_key, of_a_key_not_shown, changed, cut, no_token,
)  # fmt: skip


@pytest.mark.parametrize("forge", FORGED)
def test_a_word_that_the_provider_did_not_sign_lets_nobody_in(
    api: Served, provider: IdentityProvider, forge: Callable[[IdentityProvider, dict[str, Any]], str]
) -> None:
    provider.sign = lambda claims: forge(provider, claims)
    with pytest.raises(NotSignedIn):
        sign_in(api, provider)
    assert api.people.people() == []


WRONG: dict[str, dict[str, Any]] = {
    "of another issuer": {"iss": "https://elsewhere.example"},
    "for another program": {"aud": "payroll"},
    "for us too, but asked for by another": {"aud": [CLIENT, "payroll"], "azp": "payroll"},
    "for us and others, asked for by nobody": {"aud": [CLIENT, "payroll"]},
    "of another sign-in": {"nonce": "another"},
    "without a nonce": {"nonce": None},
    "that has ended": {"exp": 1_000_000_000},
    "that has not begun": {"nbf": time.time() + 3_600},
    "that never ends": {"exp": None},
    "of tomorrow": {"iat": time.time() + 86_400},
    "of nobody": {"sub": ""},
    "of a number": {"sub": 17},
    "without a name": {"preferred_username": None},
    "with a name that is none": {"preferred_username": "../etc"},
    "with a name of another kind": {"preferred_username": ["anna"]},
    "without groups": {"groups": None},
    "with groups of no role": {"groups": ["canteen"]},
    "with groups of another kind": {"groups": {"ml-team": True}},
    "with groups in one text": {"groups": "ml-team plant-it"},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_word_that_is_not_for_us_or_says_too_little_lets_nobody_in(
    api: Served, provider: IdentityProvider, kind: str
) -> None:
    wrong = WRONG[kind]
    provider.sign = lambda claims: provider.signed(
        {key: value for key, value in {**claims, **wrong}.items() if value is not None}
    )
    with pytest.raises(NotSignedIn):
        sign_in(api, provider)
    assert api.people.people() == []


def test_a_sign_in_ends_once_and_only_where_it_began(api: Served, provider: IdentityProvider) -> None:
    here, there = account(api), account(api)
    ticket, page = here.begin_sign_in("http://127.0.0.1:1/signed-in")
    other, _ = there.begin_sign_in("http://127.0.0.1:1/signed-in")
    asked = answers_of(page)
    provider._codes["c"] = asked
    with pytest.raises(NotSignedIn, match="another sign-in"):
        there.finish_sign_in(other, "c", asked["state"])
    with pytest.raises(NotSignedIn, match="too long, or never"):
        here.finish_sign_in("guessed", "c", asked["state"])
    assert here.finish_sign_in(ticket, "c", asked["state"])["name"] == "anna"
    with pytest.raises(NotSignedIn, match="too long, or never"):
        here.finish_sign_in(ticket, "c", asked["state"])


def test_a_code_that_somebody_else_began_is_of_no_use(api: Served, provider: IdentityProvider) -> None:
    """A code put into another's sign-in: the proof key does not fit (RFC 7636)."""
    ticket, page = account(api).begin_sign_in("http://127.0.0.1:1/signed-in")
    provider._codes["c"] = {**answers_of(page), "code_challenge": "somebody else's"}
    with pytest.raises(NotSignedIn, match="invalid_grant"):
        account(api).finish_sign_in(ticket, "c", answers_of(page)["state"])


def test_one_address_keeps_few_sign_ins_waiting(api: Served, provider: IdentityProvider) -> None:
    first, page = account(api).begin_sign_in("http://127.0.0.1:1/signed-in")
    for _ in range(16):
        account(api).begin_sign_in("http://127.0.0.1:1/signed-in")
    with pytest.raises(NotSignedIn, match="too long, or never"):
        account(api).finish_sign_in(first, "c", answers_of(page)["state"])


@pytest.mark.parametrize(
    "redirect",
    [
        "https://evil.example/", "http://evil.example:80/", "http://127.0.0.1/", "https://127.0.0.1:1/",
        "http://127.0.0.1:1/?code=x", "http://a@127.0.0.1:1/", "http://127.0.0.1:x/", "", "javascript:1",
        "http://127.0.0.1:1/\n", "http://[::1/", "//127.0.0.1:1/",
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(api: Served, redirect: str) -> None:
    with pytest.raises(ReunaError, match="nobody is sent back"):
        account(api).begin_sign_in(redirect)


def test_our_own_page_may_be_where_they_come_back_to(api: Served) -> None:
    assert account(api).begin_sign_in(f"https://127.0.0.1:{api.people_port}/")[1]


BROKEN: dict[str, tuple[str, Callable[[IdentityProvider], Any]]] = {
    "another issuer": (
        "/.well-known/openid-configuration",
        lambda p: {**p.description(), "issuer": "https://x"},
    ),
    "a page without TLS": (
        "/.well-known/openid-configuration",
        lambda p: {**p.description(), "token_endpoint": "http://elsewhere.example/token"},
    ),
    "no page": ("/.well-known/openid-configuration", lambda p: {"issuer": p.issuer}),
    "no object": ("/.well-known/openid-configuration", lambda p: []),
    "endless": ("/.well-known/openid-configuration", lambda p: {**p.description(), "more": "x" * (1 << 20)}),
    "keys of no kind": ("/keys", lambda p: {"keys": [{"kty": "nothing", "kid": p.kid}]}),
    "no keys": ("/keys", lambda p: {"keys": []}),
    "keys that are none": ("/keys", lambda p: {"keys": [17]}),
    "a list of keys": ("/keys", lambda p: {"keys": {"k-1": 1}}),
    "no word": ("/token", lambda p: {"access_token": "x"}),
    "a word of another kind": ("/token", lambda p: {"id_token": 17}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_provider_that_answers_nonsense_is_one_clear_message(
    api: Served, provider: IdentityProvider, kind: str
) -> None:
    path, what = BROKEN[kind]
    provider.pages[f"/realms/mill{path}"] = lambda: said(what(provider))
    with pytest.raises((Unreachable, NotSignedIn)) as refused:
        sign_in(api, provider)
    assert "identity provider" in refused.value.message or provider.issuer in refused.value.message
    assert api.people.people() == []


def test_a_provider_cannot_send_the_cloud_elsewhere(api: Served, provider: IdentityProvider) -> None:
    elsewhere = f"{provider.issuer}/elsewhere"
    provider.pages["/realms/mill/.well-known/openid-configuration"] = lambda: (
        302,
        {"Location": elsewhere},
        b"{}",
    )
    with pytest.raises(Unreachable, match="status 302"):
        sign_in(api, provider)
    assert "/realms/mill/elsewhere" not in provider.asked


def test_a_stranger_in_the_providers_place_is_not_believed(
    tmp_path: Path, provider: IdentityProvider
) -> None:
    """Its certificate is of an authority that the settings do not name."""
    with served(tmp_path / "cloud", provider=provider, believed=False) as running:
        with pytest.raises(Unreachable, match="certificate"):
            account(running).begin_sign_in("http://127.0.0.1:1/signed-in")
        assert provider.asked == []


def test_a_cloud_without_a_provider_says_so(tmp_path: Path) -> None:
    with served(tmp_path) as running, pytest.raises(ReunaError, match="no identity provider"):
        account(running).begin_sign_in("http://127.0.0.1:1/signed-in")


def test_who_says_no_at_the_provider_is_told_so(api: Served, provider: IdentityProvider) -> None:
    def refuse(page: str) -> None:
        back = answers_of(page)["redirect_uri"] + "?error=access_denied&error_description=You+may+not"
        provider.pages["/no"] = lambda: (302, {"Location": back}, b"")
        visit = provider.issuer.replace("/realms/mill", "/no")
        threading.Thread(target=provider.visit, args=(visit,)).start()

    with pytest.raises(NotSignedIn, match="You may not"):
        at_provider(account(api), refuse, patience_s=20.0)
    with pytest.raises(NotSignedIn, match="nobody came back"):
        at_provider(account(api), lambda _page: None, patience_s=0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"oidc.roles": {}}, "nobody could sign in"),
        ({"oidc.roles": {"ml": ["boss"]}}, "'boss' is no role"),
        ({"oidc.roles": {"ml": "engineer"}}, "expected a list"),
        ({"oidc.roles": {"ml": []}}, "needs a role"),
        ({"oidc.issuer": "http://id.example"}, "expected https"),
        ({"oidc.issuer": "id.example"}, "expected https"),
        ({"oidc.secret_file": "nowhere"}, "cannot be read"),
        ({"oidc.authority": __file__}, "is no certificate"),
    ],
)
def test_a_mistake_in_the_settings_is_named(settings: dict[str, Any], said: str) -> None:
    from reuna.cloud.coordinator import _sign_ins
    from reuna.cloud.settings import CLOUD

    good = {option.name: option.default for option in CLOUD} | {
        "oidc.issuer": "https://id.example", "oidc.roles": {"ml": ["engineer"]},
    }  # fmt: skip
    with pytest.raises(SettingsError, match=said):
        _sign_ins({**good, **settings}, None, None)  # type: ignore[arg-type]


# --- each guard off, and the attack gets through: the tests above are about something ---------------


def another_nonce(api: Served, provider: IdentityProvider) -> dict[str, Any]:
    provider.sign = lambda claims: provider.signed({**claims, "nonce": "another"})
    return sign_in(api, provider)


def another_key(api: Served, provider: IdentityProvider) -> dict[str, Any]:
    provider.sign = lambda claims: other_key(provider, claims)
    return sign_in(api, provider)


def another_state(api: Served, provider: IdentityProvider) -> dict[str, Any]:
    ticket, page = account(api).begin_sign_in("http://127.0.0.1:1/signed-in")
    provider._codes["c"] = answers_of(page)
    return account(api).finish_sign_in(ticket, "c", "another")


def somebody_elses_name(api: Served, provider: IdentityProvider) -> dict[str, Any]:
    sign_in(api, provider)
    provider.claims |= {"sub": "18"}
    return sign_in(api, provider)


def equal(_one: bytes, _other: bytes) -> bool:
    return True


def undecided(token: str, *_: Any, **__: Any) -> Any:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


@pytest.mark.parametrize(
    ("where", "wrong", "attack"),
    [
        ("reuna.trust.oidc.hmac.compare_digest", equal, another_nonce),
        ("reuna.adapters.identity_provider.jwt.decode", undecided, another_key),
        ("reuna.cloud.sign_ins.hmac.compare_digest", equal, another_state),
        ("reuna.adapters.people.PeopleStore.known_as", lambda *_: "anna", somebody_elses_name),
    ],
)
def test_without_its_guard_the_attack_succeeds(
    api: Served,
    provider: IdentityProvider,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    wrong: Callable[..., Any],
    attack: Callable[[Served, IdentityProvider], dict[str, Any]],
) -> None:
    with pytest.raises(NotSignedIn):
        attack(api, provider)
    monkeypatch.setattr(where, wrong)
    if attack is somebody_elses_name:
        provider.claims |= {"sub": "17"}
    assert attack(api, provider)["name"] == "anna"
