"""An identity provider as OpenID Connect describes it: the code flow, and its word checked.

Everything is asked for anew at each sign-in, so that a key the provider has changed needs nothing of
us; only its description is kept, for some minutes. It never redirects us and never keeps us waiting.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
import urllib3

from reuna.core.errors import NotSignedIn, SettingsError, Unreachable
from reuna.core.foreign import shown

TIMEOUT_S = 10.0  #: for each answer
LARGEST = 1 << 20  #: bytes of an answer
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
KEPT_S = 300.0  #: the provider's description
LEEWAY_S = 60.0  #: its clock may differ so much from ours
#: Signatures with a key that only the provider has; never "none", never a shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_WRONG = "Ask whoever runs the identity provider; compare with docs/how-to/people.md."


def check_address(url: object, what: str) -> str:
    """A page of the provider: over TLS, or on this very machine. Raises `SettingsError`."""
    try:
        parts = urlsplit(url if isinstance(url, str) and url.isascii() and url.isprintable() else "")
        good = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if good and parts.hostname and parts.port != 0 and not parts.username and not parts.fragment:
            return str(url)
    except ValueError:
        pass
    raise SettingsError(f"{what} is {shown(url, 80)}, expected https://…", _WRONG)


def read_secret(file: Path) -> str:
    """The client's secret, on the first line of a file. Raises `SettingsError`, which does not show it."""
    try:
        secret = file.read_text(encoding="ascii").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"oidc.secret_file: {file} cannot be read: {type(error).__name__}") from None
    if not secret:
        raise SettingsError(f"oidc.secret_file: {file} holds no secret", "Write it on the first line.")
    return secret


class IdentityProvider:
    """Blocking, and safe to use from several threads."""

    def __init__(self, issuer: str, client_id: str, secret: str = "", authority: Path | None = None) -> None:
        """``authority``: certificates, PEM, that vouch for it; the system's when there are none.

        Raises `SettingsError` when that file is no certificate, or the issuer not ``https://…``.
        """
        self._issuer = check_address(issuer, "oidc.issuer").rstrip("/")
        self._client_id = client_id
        self._secret = secret
        try:
            tls = ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"oidc.authority: {authority} is no certificate: {error}") from error
        self._pool = urllib3.PoolManager(
            ssl_context=tls, timeout=urllib3.Timeout(TIMEOUT_S), retries=False, maxsize=4
        )
        self._kept: tuple[float, dict[str, Any]] | None = None

    def address(self, state: str, nonce: str, challenge: str, redirect: str, scopes: str) -> str:
        """Where somebody signs in, in a browser. Raises `Unreachable`."""
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect,
            "scope": scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        page = self._endpoint("authorization_endpoint")
        return f"{page}{'&' if '?' in page else '?'}{urlencode(asked)}"

    def claims(self, code: str, verifier: str, redirect: str) -> dict[str, Any]:
        """What it says of whoever brought the code; signature, issuer, audience and times are good.

        Raises `NotSignedIn`, `Unreachable`.
        """
        token = self._exchange(code, verifier, redirect)
        try:
            keys = jwt.PyJWKSet.from_dict(self._get(self._endpoint("jwks_uri"))).keys
            name = jwt.get_unverified_header(token).get("kid")
            fitting = [key for key in keys if name is None or key.key_id == name]
            if not fitting:
                raise NotSignedIn("the identity provider signs with a key that it does not show", _WRONG)
            return self._verified(token, fitting)
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError) as error:
            raise NotSignedIn(f"the word of the identity provider is no good: {error}", _WRONG) from error

    def _verified(self, token: str, keys: list[jwt.PyJWK]) -> dict[str, Any]:
        """With the first key that fits; more than one only of a provider that names none."""
        for key in keys[:-1]:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return self._decoded(token, key)
        return self._decoded(token, keys[-1])

    def _decoded(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        found: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._client_id,
            issuer=self._description()["issuer"],
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        return found

    def _exchange(self, code: str, verifier: str, redirect: str) -> str:
        """The provider's word for a code (RFC 6749, 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        ways = self._description().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self._secret and "client_secret_basic" in ways:
            pair = f"{quote(self._client_id, safe='')}:{quote(self._secret, safe='')}"
            headers |= urllib3.make_headers(basic_auth=pair)
        else:
            form |= {"client_id": self._client_id}
            form |= {"client_secret": self._secret} if self._secret else {}
        status, answer = self._ask("POST", self._endpoint("token_endpoint"), urlencode(form), headers)
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            said = shown(answer.get("error", status), 80)
            raise NotSignedIn(f"the identity provider does not take the code: {said}", _WRONG)
        return token

    def _description(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, 4."""
        if self._kept is not None and time.monotonic() < self._kept[0]:
            return self._kept[1]
        found = self._get(f"{self._issuer}/.well-known/openid-configuration")
        if str(found.get("issuer")).rstrip("/") != self._issuer:
            raise Unreachable(
                f"{self._issuer} says it is {shown(found.get('issuer'), 80)}", "Correct oidc.issuer."
            )
        self._kept = time.monotonic() + KEPT_S, found
        return found

    def _endpoint(self, name: str) -> str:
        try:
            return check_address(self._description().get(name), f"{name} of {self._issuer}")
        except SettingsError as error:
            raise Unreachable(error.message, error.next_step) from None

    def _get(self, url: str) -> dict[str, Any]:
        status, answer = self._ask("GET", url, None, {})
        if status != 200:
            raise Unreachable(f"the identity provider answers {url} with status {status}", _WRONG)
        return answer

    def _ask(
        self, method: str, url: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        try:
            response = self._pool.request(
                method, url, body=body, headers={"Accept": "application/json", **headers},
                redirect=False, preload_content=False,
            )  # fmt: skip
            data = response.read(LARGEST + 1)
            response.release_conn()
            found = json.loads(data) if len(data) <= LARGEST else None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"the identity provider does not answer: {error}", _WRONG) from error
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"the identity provider answers {url} with what is no JSON object", _WRONG)
        return response.status, found
