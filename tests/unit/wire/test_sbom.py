"""The bill of materials, held against the standard's own schema."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.core.environment import Environment, Package
from reuna.wire.sbom import sbom

NUMPY = Package("numpy", "2.1.0", needs=(), files="ab" * 32, licence="BSD-3-Clause AND MIT")
REUNA = Package(
    "reuna", "0.1.0", marker="python_version < '4'", archives=("cd" * 32, "ef" * 32), needs=("numpy",)
)
BOTH = Environment("installed", (NUMPY, REUNA), ("reuna",), "3.11.7")

packages = st.builds(
    Package,
    name=st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z]", fullmatch=True),
    version=st.from_regex(r"[0-9][0-9.]{0,5}([!+][a-z0-9]{1,4})?", fullmatch=True),
    marker=st.text(max_size=10).filter(str.isprintable),
    archives=st.lists(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=2, unique=True).map(tuple),
    needs=st.none() | st.lists(st.sampled_from(["numpy", "aa"]), max_size=2, unique=True).map(tuple),
)
environments = st.lists(packages, max_size=4, unique_by=lambda each: (each.name, each.version)).map(
    lambda found: Environment("uv.lock", tuple(found))
)


def bill(environment: Environment, code: str = "12" * 32) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom("pump", code, "34" * 32, environment))
    return found


VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def errors(data: bytes) -> Any:
    return VALIDATOR.validate_str(data.decode())


def test_the_schema_of_the_standard_takes_it() -> None:
    assert errors(sbom("pump", "12" * 32, "34" * 32, BOTH)) is None
    assert errors(sbom("pump", "12" * 32, "34" * 32, BOTH).replace(b'"library"', b'"book"'))


@settings(max_examples=25)
@given(environments)
def test_the_schema_of_the_standard_takes_any_of_ours(environment: Environment) -> None:
    assert errors(sbom("pump", "12" * 32, "34" * 32, environment)) is None


def test_it_says_what_needs_what() -> None:
    assert bill(BOTH)["dependencies"] == [
        {"ref": "project", "dependsOn": ["pkg:pypi/reuna@0.1.0"]},
        {"ref": "pkg:pypi/numpy@2.1.0"},
        {"ref": "pkg:pypi/reuna@0.1.0", "dependsOn": ["pkg:pypi/numpy@2.1.0"]},
    ]


def test_of_a_package_whose_lock_does_not_say_what_it_needs_nothing_is_said() -> None:
    found = bill(Environment("requirements.lock", (Package("numpy", "2.1.0"),)))
    assert found["dependencies"] == [{"ref": "project", "dependsOn": ["pkg:pypi/numpy@2.1.0"]}]


def test_each_file_that_a_package_may_come_as_has_its_hash() -> None:
    (known,) = bill(BOTH)["components"][1]["externalReferences"]
    assert [each["content"] for each in known["hashes"]] == ["cd" * 32, "ef" * 32]


def test_it_has_neither_a_time_nor_chance_in_it() -> None:
    first = sbom("pump", "12" * 32, "34" * 32, BOTH)
    assert first == sbom("pump", "12" * 32, "34" * 32, BOTH)
    assert "timestamp" not in bill(BOTH)["metadata"]


def test_another_content_has_another_serial_number() -> None:
    numbers = {
        bill(BOTH)["serialNumber"],
        bill(BOTH, code="56" * 32)["serialNumber"],
        bill(Environment("x", ()))["serialNumber"],
    }
    assert len({uuid.UUID(number) for number in numbers}) == 3


@pytest.mark.parametrize(("version", "said"), [("1!2.0", "1%212.0"), ("2.0+cpu", "2.0%2Bcpu")])
def test_a_version_is_written_as_package_urls_have_it(version: str, said: str) -> None:
    assert (
        bill(Environment("x", (Package("torch", version),)))["components"][0]["purl"]
        == f"pkg:pypi/torch@{said}"
    )
