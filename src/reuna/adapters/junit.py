"""JUnit XML, the format in which CI systems take test results: read what pytest wrote, add cases of ours.

The dialect is the one that Jenkins, GitLab and GitHub's reporters share: ``testsuites`` of ``testsuite`` of
``testcase``, which holds at most one of ``failure``, ``error``, ``skipped``, and ``system-out``.

>>> own = Suite("reuna", (Case("dropout", FAILED, "pump-2 lost 40 %", seconds=0.5),), {"seed": "1"})
>>> [(case.name, case.outcome) for case in read_cases(merged(None, own))]
[('dropout', 'failed')]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

PASSED, FAILED, ERROR, SKIPPED = "passed", "failed", "error", "skipped"
_TAGS = {FAILED: "failure", ERROR: "error", SKIPPED: "skipped"}
_OUTCOMES = {tag: outcome for outcome, tag in _TAGS.items()}
#: What no XML 1.0 document may hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test: ``message`` says why it did not pass, ``output`` whatever else it has to say."""

    name: str
    outcome: str
    message: str = ""
    classname: str = ""
    seconds: float = 0.0
    output: str = ""


@dataclass(frozen=True)
class Suite:
    """Cases under one name, with what held for all of them."""

    name: str
    cases: Sequence[Case]
    properties: Mapping[str, str] = field(default_factory=dict)


def read_cases(document: bytes) -> list[Case]:
    """Every case of a document. Raises `ValueError` for what is no XML."""
    return [_case(element) for element in _parsed(document).iter("testcase")]


def _parsed(document: bytes) -> ET.Element:
    try:
        return ET.fromstring(document)  # noqa: S314  # pytest wrote it on this machine a moment ago
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from error


def _case(element: ET.Element) -> Case:
    found = next((inner for inner in element if inner.tag in _OUTCOMES), None)
    return Case(
        name=element.get("name", ""),
        outcome=PASSED if found is None else _OUTCOMES[found.tag],
        message="" if found is None else found.get("message", ""),
        classname=element.get("classname", ""),
        seconds=float(element.get("time", 0)),
        output="" if found is None else found.text or "",
    )


def merged(document: bytes | None, own: Suite) -> bytes:
    """The document, everything in it as it was, with a suite of ours behind; totals at the top.

    Raises `ValueError` for what is no XML.
    """
    root = ET.Element("testsuites", name="reuna test")
    if document is not None:
        found = _parsed(document)
        root.extend([found] if found.tag == "testsuite" else list(found))
    root.append(_suite(own))
    _total(root)
    ET.indent(root)
    whole: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return whole


def _suite(own: Suite) -> ET.Element:
    counts = Counter(case.outcome for case in own.cases)
    element = ET.Element(
        "testsuite",
        name=_clean(own.name),
        tests=str(len(own.cases)),
        failures=str(counts[FAILED]),
        errors=str(counts[ERROR]),
        skipped=str(counts[SKIPPED]),
        time=f"{sum(case.seconds for case in own.cases):.3f}",
    )
    if own.properties:
        kept = ET.SubElement(element, "properties")
        for name, value in own.properties.items():
            ET.SubElement(kept, "property", name=_clean(name), value=_clean(value))
    for case in own.cases:
        _add(element, case)
    return element


def _add(suite: ET.Element, case: Case) -> None:
    named = {"classname": _clean(case.classname), "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", named)
    if case.outcome in _TAGS:
        said = ET.SubElement(element, _TAGS[case.outcome], message=_clean(case.message))
        said.text = _clean(case.message)
    if case.output:
        ET.SubElement(element, "system-out").text = _clean(case.output)


def _total(root: ET.Element) -> None:
    suites = root.findall("testsuite")
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', 0)) for suite in suites):.3f}")


def _clean(text: str) -> str:
    return _NO_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
