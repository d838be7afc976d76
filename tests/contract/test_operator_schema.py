"""Schemathesis reads the API's description and tries what it allows, and what it does not.

Run by `make test-extras`; ``SCHEMA_EXAMPLES`` says how many requests of each kind, 25 when not given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from reuna.wire.openapi import openapi
from tests.contract.operator_api import Served, served

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
positive_data_acceptance, ignored_auth = checks.positive_data_acceptance, checks.ignored_auth
schema = schemathesis.openapi.from_dict(openapi())
schema.config.generation.update(modes=list(schemathesis.GenerationMode))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("api")) as running:
        yield running


@schema.parametrize()
@settings(
    max_examples=int(os.environ.get("SCHEMA_EXAMPLES", "25")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_description_names(api: Served, case) -> None:
    pair = api.operator
    case.call_and_validate(
        base_url=f"https://127.0.0.1:{api.port}",
        cert=(str(pair.certificate), str(pair.key)),
        verify=str(pair.authority),
        # that a digest is the body's and that a run can be summed exactly, a schema cannot say; the
        # certificate is there also when a session is not
        excluded_checks=[positive_data_acceptance, ignored_auth],
    )
