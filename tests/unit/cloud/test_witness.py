"""A head goes from its node through the site's policy to the cloud, and comes back countersigned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.head_store import HeadStore
from reuna.adapters.ledger_file import BESIDE, LedgerFile, entries, read, segments
from reuna.cloud.witness import CloudWitness
from reuna.core.errors import Refused, Unreachable
from reuna.core.records import ShownHead
from reuna.exchange.heads import APART_S, EVERY_S, QUIET_S, STILL_S, HeadKeeper, News, SiteWitness
from reuna.exchange.meter import CountedFlows
from reuna.exchange.proofs import show
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.trust.heads import Keys, Signer, countersign, open_countersignature
from reuna.trust.ledger import Entry
from reuna.trust.ledger_verify import verify
from reuna.wire import decode
from tests.unit.trust.books import CLOUD, intent
from tests.unit.trust.house import key

CLOUD_KEYS = frozenset({CLOUD.public_key().public_bytes_raw()})


class Fleet:
    """A cloud, the fog mill-3 and its edge press-1, each with a ledger, on a virtual clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = CertificateAuthority.create(folder / "ca", "demo")
        self.site = self.root.site(folder / "issuer", "mill-3")
        self.clock = SimClock(epoch=self._now())
        self.store = HeadStore(folder / "heads.sqlite")
        self.alarms: list[tuple[str, int]] = []
        self.revoked: set[str] = set()
        self.away = False
        self.shown: list[ShownHead] = []
        self.witness = CloudWitness(
            "demo", self.root.root(), self.store, lambda: CLOUD, self.revoked.__contains__, self._alarm,
            self.clock, InPlace(),
        )  # fmt: skip
        self.pairs = {
            "press-1": self.site.issue("edge", "press-1"),
            "mill-3": self.root.issue("fog", "mill-3"),
        }

    @staticmethod
    def _now() -> float:
        import time

        return time.time()

    def _alarm(self, node: str, _ledger: str, seq: int, what: str) -> None:
        assert what.startswith(f"ledger rewritten at record {seq}: ")
        self.alarms.append((node, seq))

    def ledger(self, node: str = "press-1", folder: str = "") -> LedgerFile:
        made = Signer("mill-3", node, key(f"{folder or node}"))
        return LedgerFile(self.folder / (folder or node), made, self.clock)

    def shows(self, ledger: LedgerFile, node: str = "press-1", signer: str = "") -> ShownHead:
        head = ledger.sign()
        assert head is not None
        pair = self.pairs[node]
        public = key(signer or node).public_key().public_bytes_raw()
        return show(head, public, pair.certificate, pair.key)

    async def countersign(self, data: bytes) -> bytes:
        """The line of the edge: through its fog to the cloud."""
        if self.away:
            raise Unreachable("the line is cut")
        shown = decode(ShownHead, data)
        self.shown.append(shown)
        return await SiteWitness(self.Above(self)).countersign("press-1", shown)

    class Above:
        def __init__(self, fleet: Fleet) -> None:
            self.fleet = fleet

        async def countersign(self, shown: ShownHead) -> bytes:
            return await self.fleet.witness.countersign("mill-3", shown)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def asked(fleet: Fleet, shown: ShownHead, peer: str = "mill-3") -> bytes:
    return run_virtual(fleet.witness.countersign(peer, shown))


def opened(fleet: Fleet, work: Callable[[LedgerFile], Any], folder: str = "", record: int = 0) -> Any:
    """Do something with the ledger of press-1, which has one record more from now on."""

    async def body() -> Any:
        ledger = fleet.ledger(folder=folder)
        try:
            ledger.append(intent(record))
            return work(ledger)
        finally:
            ledger.close()

    return run_virtual(body())


def test_a_revoked_node_gets_no_countersignature_also_when_its_fog_has_not_heard(fleet: Fleet) -> None:
    shown = opened(fleet, fleet.shows)
    fleet.revoked.add("press-1")
    with pytest.raises(Refused, match="revoked"):
        asked(fleet, shown)
    assert fleet.alarms == []
    fleet.revoked.clear()
    assert asked(fleet, shown)


def test_a_head_is_countersigned_once_and_the_node_keeps_it_beside_its_ledger(fleet: Fleet) -> None:
    shown = opened(fleet, fleet.shows)
    statement = asked(fleet, shown)
    assert asked(fleet, shown) == statement
    node = frozenset({key("press-1").public_key().public_bytes_raw()})
    assert open_countersignature(statement, Keys(node, CLOUD_KEYS)).node == "press-1"
    opened(fleet, lambda ledger: ledger.countersigned(statement, CLOUD_KEYS))
    assert (fleet.folder / "press-1" / BESIDE).read_text().strip() == statement.hex()
    verdict = verify(read(fleet.folder / "press-1"), Keys(node, CLOUD_KEYS))
    assert verdict.good
    assert verdict.countersigned == verdict.said_countersigned == 1
    assert len(fleet.store.every()) == 1


def test_a_fog_shows_its_own_heads(fleet: Fleet) -> None:
    def shows(_: LedgerFile) -> ShownHead:
        own = fleet.ledger("mill-3")
        own.append(intent())
        shown = fleet.shows(own, "mill-3")
        own.close()
        return shown

    assert asked(fleet, opened(fleet, shows))


def test_a_ledger_that_was_cut_is_an_alarm_and_gets_no_signature(fleet: Fleet) -> None:
    folder, kept = fleet.folder / "press-1", fleet.folder / "kept"
    opened(fleet, fleet.shows)
    shutil.copytree(folder, kept)
    asked(
        fleet,
        opened(fleet, lambda ledger: [ledger.append(intent(n)) for n in range(3)] and fleet.shows(ledger)),
    )
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    with pytest.raises(Refused) as refusal:
        asked(fleet, opened(fleet, fleet.shows))
    assert refusal.value.reason == "replayed"
    assert fleet.alarms == [("press-1", 3)]


def test_another_record_at_a_place_that_was_shown_is_an_alarm(fleet: Fleet) -> None:
    folder, kept = fleet.folder / "press-1", fleet.folder / "kept"
    opened(fleet, fleet.shows)
    shutil.copytree(folder, kept)
    asked(fleet, opened(fleet, fleet.shows))
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    with pytest.raises(Refused) as refusal:
        asked(fleet, opened(fleet, fleet.shows, record=99))
    assert refusal.value.reason == "conflict"
    assert fleet.alarms == [("press-1", 3)]


def test_a_second_ledger_waits_until_the_operator_agrees(fleet: Fleet) -> None:
    asked(fleet, opened(fleet, fleet.shows))
    other = opened(fleet, lambda ledger: fleet.shows(ledger, signer="other"), folder="other")
    with pytest.raises(Refused, match="another key"):
        asked(fleet, other)
    assert fleet.alarms == [("press-1", 1)]
    assert fleet.store.release("spiffe://mill-3.demo/edge/press-1") == 1
    assert asked(fleet, other)


def changed(shown: ShownHead, **fields: Any) -> ShownHead:
    return msgspec.structs.replace(shown, **fields)


@pytest.mark.parametrize("what", ["proof", "key", "chain", "site", "fleet", "name", "long", "none"])
def test_who_is_not_the_node_of_the_ledger_is_refused(fleet: Fleet, what: str, tmp_path: Path) -> None:
    shown = opened(fleet, fleet.shows)
    fleet.pairs["neighbour"] = fleet.root.site(tmp_path / "s", "mill-4").issue("edge", "press-1")
    stranger = CertificateAuthority.create(tmp_path / "strangers", "demo")
    fleet.pairs["stranger"] = stranger.site(tmp_path / "t", "mill-3").issue("edge", "press-1")
    fleet.pairs["press-2"] = fleet.site.issue("edge", "press-2")
    wrong = {
        "proof": lambda: changed(shown, proof=bytes(70)),
        "key": lambda: changed(shown, key=bytes(32)),
        "chain": lambda: changed(shown, chain=shown.chain[:1]),
        "site": lambda: opened(fleet, lambda ledger: fleet.shows(ledger, "neighbour", "press-1")),
        "fleet": lambda: opened(fleet, lambda ledger: fleet.shows(ledger, "stranger", "press-1")),
        "name": lambda: opened(fleet, lambda ledger: fleet.shows(ledger, "press-2", "press-1")),
        "long": lambda: changed(shown, chain=shown.chain * 9),
        "none": lambda: changed(shown, chain=(b"no certificate",)),
    }[what]()
    with pytest.raises(Refused) as refusal:
        asked(fleet, wrong)
    assert refusal.value.reason == "identity"
    assert not fleet.alarms
    assert not fleet.store.every()
    assert asked(fleet, shown)


def test_a_fog_may_not_show_a_head_of_another_site(fleet: Fleet) -> None:
    with pytest.raises(Refused, match="not of its site"):
        asked(fleet, opened(fleet, fleet.shows), peer="mill-4")


def test_a_node_may_not_show_a_head_of_its_neighbour_to_its_fog(fleet: Fleet) -> None:
    shown = opened(fleet, fleet.shows)
    with pytest.raises(Refused) as refusal:
        run_virtual(SiteWitness(Fleet.Above(fleet)).countersign("press-2", shown))
    assert refusal.value.reason == "identity"


# --- when a head is shown ------------------------------------------------------------------------


def kept(fleet: Fleet, work: Callable[[News], Any]) -> News:
    """What `HeadKeeper` does beside ``work``, a coroutine on the virtual clock."""
    import asyncio

    async def body() -> News:
        news = News(fleet.ledger(), fleet.clock)
        pair, public = fleet.pairs["press-1"], key("press-1").public_key().public_bytes_raw()

        class Written(CountedFlows):
            """Each head that leaves stands in the ledger, as with a site's policy."""

            def leave(self, *payloads: Any) -> tuple[int, ...]:
                sent = [Entry(time_ms=0, kind="intent", flow=each.request.kind) for each in payloads]
                return tuple(news.append_all(sent))

            def arrived(self, passage: tuple[int, ...], outcome: str) -> None:
                news.append_all([Entry(time_ms=0, kind="outcome", intent=n, reason=outcome) for n in passage])

        keeper = HeadKeeper(
            news, Written("press-1"), "fog", fleet,
            lambda head: show(head, public, pair.certificate, pair.key),
            lambda: CLOUD_KEYS, fleet.clock, InPlace(),
        )  # fmt: skip
        running = asyncio.create_task(keeper.keep())
        await work(news)
        running.cancel()
        news.ledger.close()
        return news

    return run_virtual(body())


def test_a_ledger_that_falls_silent_is_shown_once(fleet: Fleet) -> None:
    async def work(news: News) -> None:
        await fleet.clock.sleep(20)
        news.append_all([intent()])
        await fleet.clock.sleep(10 * QUIET_S)

    kept(fleet, work)
    assert len(fleet.shown) == 1
    reasons = [e.reason for _, e in entries(fleet.folder / "press-1") if e.kind == "outcome"]
    assert reasons == ["countersigned"]


def test_showing_heads_makes_no_news_and_a_still_ledger_is_shown_rarely(fleet: Fleet) -> None:
    async def work(news: News) -> None:
        await fleet.clock.sleep(4 * STILL_S + 60)

    kept(fleet, work)
    assert len(fleet.shown) == 4


def test_a_ledger_that_does_not_fall_silent_is_shown_every_minute(fleet: Fleet) -> None:
    async def work(news: News) -> None:
        for number in range(180):
            news.append_all([intent(number)])
            await fleet.clock.sleep(2.0)

    kept(fleet, work)
    assert len(fleet.shown) in {360 / EVERY_S - 1, 360 / EVERY_S}


@pytest.mark.parametrize("round_s", [5.0, 8.0, 20.0])
def test_between_the_rounds_of_a_run_a_ledger_does_not_fall_silent_but_after_the_last_it_does(
    fleet: Fleet, round_s: float
) -> None:
    async def work(news: News) -> None:
        rounds = int(300 / round_s)
        for number in range(rounds):
            news.append_all([intent(number)])
            await fleet.clock.sleep(0.1)
            news.append_all([intent(rounds + number)])
            await fleet.clock.sleep(round_s - 0.1)
        during = len(fleet.shown)
        assert 300 / EVERY_S - 1 <= during <= 300 / EVERY_S + 1  # the first silence may be the last
        await fleet.clock.sleep(2 * round_s + APART_S)
        assert len(fleet.shown) == during + 1

    kept(fleet, work)


def test_news_after_a_long_silence_are_shown_as_soon_as_before(fleet: Fleet) -> None:
    async def work(news: News) -> None:
        news.append_all([intent(1)])
        await fleet.clock.sleep(STILL_S / 2)
        before = len(fleet.shown)
        news.append_all([intent(2)])
        await fleet.clock.sleep(2.0)
        news.append_all([intent(3)])
        await fleet.clock.sleep(APART_S + 2.0)
        assert len(fleet.shown) == before + 2

    kept(fleet, work)


def test_while_the_line_is_down_the_ledger_goes_on_and_its_head_comes_later(fleet: Fleet) -> None:
    async def work(news: News) -> None:
        fleet.away = True
        for number in range(100):
            news.append_all([intent(number)])
            await fleet.clock.sleep(10.0)
        fleet.away = False
        await fleet.clock.sleep(700.0)

    news = kept(fleet, work)
    verdict = verify(read(fleet.folder / "press-1"), Keys(cloud=CLOUD_KEYS))
    assert verdict.good
    assert verdict.countersigned >= 100
    assert len(fleet.shown) == 2
    assert news.count == 100
    assert len(list(segments(fleet.folder / "press-1"))) == 1


def test_a_countersignature_by_another_key_is_not_kept(fleet: Fleet) -> None:
    async def forged(data: bytes) -> bytes:
        shown = decode(ShownHead, data)
        fleet.shown.append(shown)
        return countersign(shown.head, [shown.key], key("thief"), None, 0)

    fleet.countersign = forged  # type: ignore[method-assign]

    async def work(news: News) -> None:
        news.append_all([intent()])
        await fleet.clock.sleep(30.0)

    kept(fleet, work)
    assert fleet.shown
    assert not (fleet.folder / "press-1" / BESIDE).exists()


def test_a_head_of_a_node_under_a_fog_under_the_fog_is_countersigned_and_of_another_not(fleet: Fleet) -> None:
    under = CloudWitness(
        "demo", fleet.root.root(), fleet.store, lambda: CLOUD, fleet.revoked.__contains__, fleet._alarm,
        fleet.clock, InPlace(), lambda peer, place: peer == place or (peer, place) == ("firm", "mill-3"),
    )  # fmt: skip
    shown = opened(fleet, fleet.shows)
    assert run_virtual(under.countersign("firm", shown))
    with pytest.raises(Refused, match="not of its site"):
        run_virtual(under.countersign("lab", shown))


def test_a_fog_takes_heads_of_those_that_a_fog_under_it_may_tell_of(fleet: Fleet) -> None:
    shown = opened(fleet, fleet.shows)
    site = SiteWitness(Fleet.Above(fleet), lambda child, node: (child, node) == ("hall", "press-1"))
    assert run_virtual(site.countersign("hall", shown))
    with pytest.raises(Refused, match="shows a head of the ledger of 'press-1'"):
        run_virtual(site.countersign("yard", shown))
