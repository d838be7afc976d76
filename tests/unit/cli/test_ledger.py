"""`reuna ledger` as a data officer and an auditor use it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from reuna.adapters.ledger_file import BESIDE, LedgerFile, segments
from reuna.cli import app
from reuna.core.errors import Corrupted, LedgerProblem, ReunaError, SettingsError, Unreachable, Untrusted
from reuna.fleet.ledger_summary import MAX_DAYS, summarise
from reuna.trust.heads import countersign
from reuna.trust.ledger import Entry, framed, read_record, split
from tests.unit.adapters.test_ledger_file import Hands
from tests.unit.adapters.test_syslog import FORM, Server
from tests.unit.trust.books import CLOUD, KEYS, NOW_MS, SIGNER, Book, intent, outcome

RUN = CliRunner()
DAY_MS = 86_400_000
HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger of two days, its keys and a head kept by the cloud."""
    monkeypatch.chdir(tmp_path)
    made = LedgerFile(tmp_path / "ledger", SIGNER, Hands())
    made.append(Entry(time_ms=NOW_MS, kind="policy", policy_serial=17, policy="cd" * 32, reason="in force"))
    made.append(Entry(time_ms=NOW_MS, kind="code", code="ef" * 32, level=3, decision="allow", reason="run"))
    for number in (1, 2):
        at = NOW_MS + 2 * (number - 1) * DAY_MS
        sent = made.append(
            intent(number, time_ms=at, epsilon=0.5, epsilon_left=4 - number / 2, unit="asset-day")
        )
        said = "acknowledged" if number == 1 else "refused: stale"
        made.append(Entry(time_ms=at, kind="outcome", intent=sent, reason=said))
    made.append(intent(3, time_ms=NOW_MS + 2 * DAY_MS, flow="metric", to="cloud", payload_bytes=9, cohort=0))
    made.append(
        Entry(
            time_ms=NOW_MS + 2 * DAY_MS,
            kind="refused",
            flow="log",
            to="cloud",
            decision="deny",
            reason=HOSTILE,
        )
    )
    head = made.sign()
    assert head
    statement = countersign(head, KEYS.node, CLOUD, None, NOW_MS)
    made.countersigned(statement, KEYS.cloud)
    made.close()
    lines = [f"node {key.hex()}" for key in KEYS.node] + [f"cloud {key.hex()}  # ours" for key in KEYS.cloud]
    (tmp_path / "keys").write_text("\n".join(["# known", "", *lines]))
    (tmp_path / "heads").write_text(statement.hex() + "\n")
    return tmp_path


def reuna(*arguments: str, wrong: type[ReunaError] | None = None) -> str:
    done = RUN.invoke(app, ["ledger", *arguments])
    if wrong is not None:
        assert isinstance(done.exception, wrong), done.exception or done.output
        assert done.exception.next_step.endswith(".")
    else:
        assert done.exit_code == 0, done.exception or done.output
    return done.stdout


def damage(folder: Path, at: int = 600) -> None:
    path = segments(folder)[0]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- verify ----------------------------------------------------------------------------------------


def test_a_good_ledger_says_who_vouches_for_how_much() -> None:
    said = reuna("verify", "ledger", "--keys", "keys", "--heads", "heads")
    assert "11 good records" in said
    assert said.count("up to record 8") == 3
    found = json.loads(reuna("verify", "ledger", "--json"))
    assert found["good"]
    assert not found["keys_given"]
    assert found["countersigned"] == found["kept_elsewhere"] == -1


def test_a_wrong_record_is_named_and_the_status_tells(place: Path) -> None:
    damage(place / "ledger")
    found = json.loads(reuna("verify", "ledger", "--json", wrong=Corrupted))
    assert found["fault"]["what"] == "changed"
    assert found["fault"]["index"] == found["records"] == 2
    reuna("show", "ledger", wrong=Corrupted)
    reuna("export", "ledger", "--to", "out.jsonl", wrong=Corrupted)


def test_a_cut_ledger_is_found_out_by_what_the_cloud_kept(place: Path) -> None:
    path = segments(place / "ledger")[0]
    records = _records(path)
    path.write_bytes(b"".join(framed(raw) for raw in records[:6]))
    reuna("verify", "ledger", wrong=Corrupted)  # by what the node keeps beside it
    (place / "ledger" / BESIDE).unlink()
    reuna("verify", "ledger", "--keys", "keys")
    found = json.loads(
        reuna("verify", "ledger", "--keys", "keys", "--heads", "heads", "--json", wrong=Corrupted)
    )
    assert (found["fault"]["what"], found["fault"]["index"]) == ("cut", 6)


def _records(path: Path) -> list[bytes]:
    return split(path.read_bytes()).records


def test_mistakes_in_the_files_given_are_said(place: Path) -> None:
    for text in ("node xyz", "who 00", "node", b"\xff\xfe"):
        (place / "bad").write_bytes(text if isinstance(text, bytes) else text.encode())
        reuna("verify", "ledger", "--keys", "bad", wrong=LedgerProblem)
    reuna("verify", "ledger", "--heads", "keys", wrong=LedgerProblem)
    reuna("verify", "ledger", "--heads", "heads", wrong=Untrusted)  # no cloud key: it is no evidence
    reuna("verify", "ledger", "--keys", "nowhere", wrong=LedgerProblem)
    reuna("verify", "nowhere", wrong=LedgerProblem)


def test_the_verifier_is_printed_whole(place: Path) -> None:
    (place / "verify.py").write_text(reuna("verifier"), encoding="utf-8")
    words = [sys.executable, "-I", "verify.py", "ledger", "--keys", "keys", "--heads", "heads"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "good: 11 records" in done.stdout
    damage(place / "ledger")
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=place)
    assert (done.returncode, "record 2" in done.stderr) == (1, True)


# --- show ------------------------------------------------------------------------------------------


def test_the_newest_records_are_shown_and_steer_no_terminal() -> None:
    found = json.loads(reuna("show", "ledger", "--last", "3", "--json"))
    assert [each["kind"] for each in found] == ["refused", "head", "countersigned"]
    said = reuna("show", "ledger")
    assert "model_update" in said or "model_" in said
    assert "\x1b[31m" not in said


# --- export ----------------------------------------------------------------------------------------


def go_on(folder: Path, count: int) -> None:
    made = LedgerFile(folder, SIGNER, Hands())
    for number in range(count):
        made.append(intent(number))
    made.close()


def test_a_file_gets_each_record_once_also_after_a_crash(place: Path) -> None:
    assert "11 records" in reuna("export", "ledger", "--to", "out.jsonl")
    assert json.loads(reuna("export", "ledger", "--to", "out.jsonl", "--json")) == {"exported": 0}
    go_on(place / "ledger", 2)
    with (place / "out.jsonl").open("a") as file:
        file.write('{"seq": 11, "dig')  # a crash cut this line
    assert "2 records" in reuna("export", "ledger", "--to", "out.jsonl")
    lines = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(13))
    for before, line in pairwise(lines):
        assert line["previous"] == before["digest"]
    # the export holds the signed heads, so it can stand for what the SIEM kept
    assert "up to record 8" in reuna("verify", "ledger", "--keys", "keys", "--heads", "out.jsonl")


def test_an_export_does_not_go_on_with_another_ledger(place: Path) -> None:
    reuna("export", "ledger", "--to", "out.jsonl")
    LedgerFile(place / "other", SIGNER, Hands()).close()
    reuna("export", "other", "--to", "out.jsonl", wrong=Corrupted)
    go_on(place / "other", 20)
    reuna("export", "other", "--to", "out.jsonl", wrong=Corrupted)
    (place / "text.txt").write_text("something else\n")
    reuna("export", "ledger", "--to", "text.txt", wrong=LedgerProblem)


def test_a_syslog_server_gets_each_record_once(place: Path) -> None:
    server = Server()
    reuna("export", "ledger", "--to", server.url, "--state", "sent.json")
    messages = server.messages()
    assert len(messages) == 11
    for number, data in enumerate(messages):
        found = FORM.match(data)
        assert found, data
        assert f'seq="{number}"'.encode() in data
        assert json.loads(found[9])["seq"] == number
    assert b"<108>" in messages[8]  # a refusal is a warning
    go_on(place / "ledger", 1)
    again = Server()
    assert "1 records" in reuna("export", "ledger", "--to", again.url, "--state", "sent.json")
    assert [b'seq="11"' in data for data in again.messages()] == [True]
    log = place / "siem.log"
    log.write_bytes(b"\n".join(messages))
    assert "up to record 8" in reuna("verify", "ledger", "--keys", "keys", "--heads", "siem.log")


def test_a_server_is_remembered_beside_the_ledger(place: Path) -> None:
    server = Server()
    reuna("export", "ledger", "--to", server.url)
    server.messages()
    assert list((place / "ledger").glob("sent-syslog-tcp-127-0-0-1-*.json"))
    assert "11 good records" in reuna("verify", "ledger")


def test_an_export_to_nowhere_is_said(place: Path) -> None:
    reuna("export", "ledger", "--to", "ftp://host/x", wrong=LedgerProblem)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"syslog+tcp://127.0.0.1:{unused.getsockname()[1]}"
        reuna("export", "ledger", "--to", url, wrong=Unreachable)


# --- report ----------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Fails for a tag that is not closed, and remembers what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_that_needs_nothing_else(place: Path) -> None:
    assert "report: out.html" in reuna("report", "ledger", "--out", "out.html", "--keys", "keys")
    text = (place / "out.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert not tags.links
    assert "script" not in tags.seen
    assert "svg" in tags.seen
    for said in ("The ledger is whole", "fog-a", "asset-day", "updates", "0 B", "alert(1)", "48.0 h"):
        assert said in text, said
    assert "http" not in text


def test_the_report_in_numbers() -> None:
    found = json.loads(reuna("report", "ledger", "--json"))
    assert found["verdict"]["good"]
    assert [(row["flow"], row["payload_bytes"], row["refused"]) for row in found["flows"]] == [
        ("metric", 9, 0),
        ("model_update", 203, 1),
    ]
    assert found["days"] == {
        "2026-11-18": {"model_update": 101},
        "2026-11-19": {},
        "2026-11-20": {"model_update": 102, "metric": 9},
    }
    assert found["rounds"] == {"2026-11-18": 1, "2026-11-20": 1}
    assert found["epsilon"] == [{"unit": "asset-day", "spent": 1.0, "left": 3.0}]
    assert [row["reason"] for row in found["refused"]] == [HOSTILE]
    assert found["code"][0]["level"] == 3
    assert found["policies"][0]["serial"] == 17
    assert found["cohorts"][0]["smallest"] == 0
    assert len(found["gaps"]) == 1
    assert (found["unfinished"], found["clock_set_back"]) == (1, 1)


def test_a_report_of_some_days_leaves_the_others_out() -> None:
    found = json.loads(reuna("report", "ledger", "--json", "--since", "2026-11-20"))
    assert list(found["days"]) == ["2026-11-20"]
    assert not found["policies"]
    found = json.loads(reuna("report", "ledger", "--json", "--until", "2026-11-17"))
    assert (found["records"], found["days"]) == (0, {})
    for day in ("2026-13-01", "yesterday", "20261120"):
        reuna("report", "ledger", "--since", day, wrong=SettingsError)
    reuna("report", "ledger", "--until", "2026-11-17")


def test_the_report_of_a_damaged_ledger_says_so_first(place: Path) -> None:
    damage(place / "ledger")
    reuna("report", "ledger", wrong=Corrupted)
    text = (place / "report.html").read_text(encoding="utf-8")
    assert re.search(r'<p class="verdict bad">.*record 2: ', text)
    assert "fog-a" not in text


def test_a_report_of_nothing_but_damage_is_still_a_page(place: Path) -> None:
    segments(place / "ledger")[0].write_bytes(b"nothing of ours")
    reuna("report", "ledger", wrong=Corrupted)
    assert "record 0" in (place / "report.html").read_text(encoding="utf-8")


def test_a_clock_that_was_wrong_once_makes_no_page_of_a_million_days(place: Path) -> None:
    made = Book()
    made.add(intent(1, time_ms=0))
    made.add(intent(2, time_ms=250_000_000_000_000))
    found = summarise([read_record(raw) for raw in made.records])
    assert len(found["days"]) == MAX_DAYS + 1


def allowance(number: int) -> Entry:
    return intent(number, flow="presence", messages=16, payload_bytes=688)


@pytest.mark.parametrize(
    ("later_s", "unfinished"), [(0, 0), (59, 0), (64, 0), (66, 1), (-5, 1)], ids=lambda value: str(value)
)
def test_an_allowance_without_outcome_is_told_once_its_minute_is_over(later_s: int, unfinished: int) -> None:
    made = Book()
    made.add(allowance(1))
    records = [read_record(raw) for raw in made.records]
    assert summarise(records, now_ms=NOW_MS + 1000 * (1 + later_s))["unfinished"] == unfinished


def test_an_allowance_of_a_day_that_is_long_over_is_told() -> None:
    made = Book()
    made.add(allowance(1))
    made.add(intent(500))
    made.add(outcome(501, of=2, reason="acknowledged"))
    assert summarise([read_record(raw) for raw in made.records])["unfinished"] == 1


def test_an_ordinary_intent_without_outcome_is_told_at_once() -> None:
    made = Book()
    made.add(intent(1))
    assert summarise([read_record(raw) for raw in made.records])["unfinished"] == 1


def test_a_flow_of_which_nothing_left_is_not_among_what_left() -> None:
    made = Book()
    made.add(allowance(1))
    made.add(outcome(60, of=1, reason="stayed"))
    found = summarise([read_record(raw) for raw in made.records], now_ms=NOW_MS + 3_600_000)
    assert (found["flows"], found["unfinished"]) == ([], 0)
    made.add(allowance(61))
    made.add(msgspec.structs.replace(outcome(120, of=3, reason="sent"), messages=2, payload_bytes=86))
    (flow,) = summarise([read_record(raw) for raw in made.records], now_ms=NOW_MS + 3_600_000)["flows"]
    assert (flow["messages"], flow["payload_bytes"]) == (2, 86)
