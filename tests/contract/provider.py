"""A small identity provider over real TLS: OpenID Connect's code flow with S256, and whatever a test makes wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.tls import KeyPair

CLIENT, SECRET = "reuna-cloud", "a secret: of the client"
Answer = tuple[int, dict[str, str], bytes]


class IdentityProvider:
    """Whoever comes signs in at once as ``claims``. `pages` replaces what a path answers."""

    def __init__(self, folder: Path) -> None:
        pair = CertificateAuthority.create(folder / "provider", "idp").issue(
            "idp", "idp", hosts=["127.0.0.1"]
        )
        self.authority = pair.authority
        self.claims: dict[str, Any] = {"sub": "17", "preferred_username": "anna", "groups": ["ml-team"]}
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), "k-1"
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.pages: dict[str, Callable[[], Answer]] = {}
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = _serving(pair).wrap_socket(self._server.socket, server_side=True)
        self.issuer = f"https://127.0.0.1:{self._server.server_port}/realms/mill"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> IdentityProvider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, "ES256", headers={"kid": self.kid})

    def visit(self, page: str) -> None:
        """What a person's browser does: the page, and where it sends them."""
        with urllib.request.urlopen(
            page, context=ssl.create_default_context(cafile=self.authority)
        ) as answer:
            answer.read()

    # --- its pages -------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        path = urlsplit(target).path
        self.asked.append(path)
        if path in self.pages:
            return self.pages[path]()
        asked = dict(parse_qsl(urlsplit(target).query))
        if path.endswith("/.well-known/openid-configuration"):
            return said(self.description())
        if path.endswith("/keys"):
            jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return said({"keys": [{**jwk, "kid": self.kid, "use": "sig"}]})
        if path.endswith("/authorize"):
            return self._authorize(asked)
        if path.endswith("/token") and method == "POST":
            return self._token(dict(parse_qsl(body.decode())), headers.get("Authorization", ""))
        return said({"error": "not found"}, 404)

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def _authorize(self, asked: dict[str, str]) -> Answer:
        assert (asked["client_id"], asked["response_type"]) == (CLIENT, "code")
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
        return 302, {"Location": back}, b""

    def _token(self, form: dict[str, str], given: str) -> Answer:
        expected = base64.b64encode(f"{CLIENT}:{quote(SECRET, safe='')}".encode()).decode()
        asked = self._codes.pop(form["code"], None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if given != f"Basic {expected}":
            return said({"error": "invalid_client"}, 401)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return said({"error": "invalid_grant"}, 400)
        if asked["code_challenge"] != proof.decode():
            return said({"error": "invalid_grant", "why": "code_verifier"}, 400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        return said(
            {"token_type": "Bearer", "access_token": "x", "id_token": self.sign({**claims, **self.claims})}
        )


def said(what: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(what).encode()


def answers_of(page: str) -> dict[str, str]:
    """What a page's address asks for."""
    return {key: unquote(value) for key, value in parse_qsl(urlsplit(page).query)}


def _serving(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def _handler(provider: IdentityProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, data = provider.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815  # as the library asks

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler
