"""JUnit XML as CI systems take it: what pytest wrote is kept, what we add can be read."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.junit import ERROR, FAILED, PASSED, SKIPPED, Case, Suite, merged, read_cases

OUTCOMES = (PASSED, FAILED, ERROR, SKIPPED)
TEXT = st.text(st.characters(codec=None), max_size=30)  # any code point, lone surrogates and controls too
CASES = st.builds(
    Case, TEXT, st.sampled_from(OUTCOMES), TEXT, TEXT, st.floats(0, 1e5).map(lambda s: round(s, 3)), TEXT
)
#: What each element may hold and must have, of the schema of Jenkins' xUnit plug-in (junit-10.xsd).
MAY_HOLD = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase", "system-out", "system-err"},
    "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}
MUST_HAVE = {
    "testsuite": {"name", "tests", "failures", "errors", "time"},
    "testcase": {"name", "classname", "time"},
    "property": {"name", "value"},
}
MAY_HAVE = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {*MUST_HAVE["testsuite"], "skipped", "timestamp", "hostname"},
    "testcase": MUST_HAVE["testcase"],
    "property": MUST_HAVE["property"],
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message", "type"},
}


def check(document: bytes) -> ET.Element:
    """Elements, attributes and counts as the schema has them."""
    root = ET.fromstring(document)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert {inner.tag for inner in element} <= MAY_HOLD.get(element.tag, set()), element.tag
        assert MUST_HAVE.get(element.tag, set()) <= set(element.attrib), element.tag
        assert set(element.attrib) <= MAY_HAVE.get(element.tag, set()), element.tag
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(name, "")) == sum(case.find(tag) is not None for case in cases)
    for name in ("tests", "failures", "errors"):
        assert int(root.get(name, "")) == sum(int(suite.get(name, "")) for suite in root)
    return root


@given(st.lists(CASES, max_size=5), TEXT, st.dictionaries(TEXT, TEXT, max_size=3))
def test_whatever_a_case_says_the_document_can_be_read(
    cases: list[Case], name: str, properties: dict[str, str]
) -> None:
    document = merged(None, Suite(name, cases, properties))
    check(document)
    found = read_cases(document)
    assert [(each.outcome, each.seconds) for each in found] == [
        (each.outcome, each.seconds) for each in cases
    ]
    again = merged(document, Suite("more", [], {}))
    assert read_cases(again) == found


def test_what_was_said_is_read_back() -> None:
    case = Case("dropout", FAILED, 'pump-2 <fell> & "rose"', "reuna.simulation", 1.5, "failed: long")
    (found,) = read_cases(merged(None, Suite("reuna", [case])))
    assert (found.name, found.classname, found.message, found.seconds) == (
        "dropout",
        "reuna.simulation",
        'pump-2 <fell> & "rose"',
        1.5,
    )


@pytest.fixture(scope="module")
def by_pytest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "test_all.py").write_text(
        "import pytest\n"
        "def test_good(record_property): print('said'); record_property('k', 'v')\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no plant')\n"
        "def test_error(broken): ...\n"
        "@pytest.mark.skip(reason='not now')\n"
        "def test_later(): ...\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--junit-xml=j.xml",
        "-c",
        "/dev/null",
    ]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=100)
    return (folder / "j.xml").read_bytes()


def test_what_pytest_wrote_is_understood(by_pytest: bytes) -> None:
    found = {case.name: case for case in read_cases(by_pytest)}
    assert {name: case.outcome for name, case in found.items()} == {
        "test_good": PASSED,
        "test_bad": FAILED,
        "test_error": ERROR,
        "test_later": SKIPPED,
    }
    assert "assert 1 == 2" in found["test_bad"].message
    assert found["test_later"].message == "not now"


def test_what_pytest_wrote_is_kept_as_it_was(by_pytest: bytes) -> None:
    root = ET.fromstring(merged(by_pytest, Suite("reuna", [Case("dropout", PASSED, seconds=1.0)])))
    theirs, ours = root.findall("testsuite")
    kept = ET.fromstring(by_pytest).find("testsuite")
    assert kept is not None
    for before, after in zip(kept.iter(), theirs.iter(), strict=True):
        assert (before.tag, before.attrib) == (after.tag, after.attrib)
        if not len(before):
            assert before.text == after.text
    assert ours.get("name") == "reuna"
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "1")


def test_what_is_no_xml_is_a_value_error() -> None:
    for document in (b"", b"<testsuites>", b"no"):
        with pytest.raises(ValueError, match="no XML"):
            read_cases(document)
        with pytest.raises(ValueError, match="no XML"):
            merged(document, Suite("reuna", []))


def test_a_document_of_one_suite_is_taken_in_too() -> None:
    root = check(
        merged(
            b'<testsuite name="a" tests="0" failures="0" errors="0" skipped="0" time="0"/>', Suite("b", [])
        )
    )
    assert [suite.get("name") for suite in root] == ["a", "b"]
