"""Signing in at a provider that others wrote (on Authlib); run by `make test-extras`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from reuna.fleet.people import Account, at_provider
from reuna.fleet.ports import free_ports
from tests.contract.operator_api import served_with
from tests.system.test_enrolment import until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("oidc_provider_mock") is None, reason="oidc-provider-mock is not installed"
)
ANNA = {"sub": "17", "preferred_username": "Anna", "groups": ["ml-team"]}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def click(page: str) -> None:
    """Sign in on its form, as Anna."""
    with urllib.request.urlopen(page) as answer:
        form = answer.read().decode()
    assert re.search(r'name="?sub"?', form)
    with urllib.request.urlopen(page, urllib.parse.urlencode({"sub": ANNA["sub"]}).encode()) as answer:
        assert "close this page" in answer.read().decode()


def test_a_provider_of_others_is_understood(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = ("-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true")
    issuer = f"http://127.0.0.1:{port}"
    with (tmp_path / "provider.log").open("wb") as log, subprocess.Popen(
        [sys.executable, *words, "--user-claims", json.dumps(ANNA)], stdout=log, stderr=log
    ) as provider:  # fmt: skip
        try:
            until(lambda: answers(f"{issuer}/.well-known/openid-configuration"))
            oidc = {"oidc.issuer": issuer, "oidc.client_id": "reuna", "oidc.roles": {"ml-team": ["engineer"]}}
            with served_with(tmp_path, {**oidc, "oidc.secret_file": secret(tmp_path)}) as api:
                found = at_provider(
                    Account("127.0.0.1", api.people_port, api.operator.authority.read_text()),
                    lambda page: threading.Thread(target=click, args=(page,)).start(),
                    patience_s=20.0,
                )
                assert (found["name"], found["roles"]) == ("anna", ["engineer"])
        finally:
            provider.terminate()


def secret(folder: Path) -> str:
    (folder / "client").mkdir()
    (folder / "client" / "secret").write_text("anything: here\n")
    return str(folder / "client" / "secret")
