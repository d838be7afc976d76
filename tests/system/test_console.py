"""The console in a real browser at a real cloud: what people see, what they decide, and what the page may not do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reuna.adapters.events import EventLog
from reuna.core.records import Event, Grid, RunSpec
from reuna.fleet.people import Account
from reuna.wire import digest_bytes
from tests.contract.provider import CLIENT, SECRET, IdentityProvider
from tests.system.browser import CHROMIUM, Page, browser
from tests.system.test_enrolment import HOST, Plant, until
from tests.system.test_people import PASSWORD, People

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`"),
]
RUN = "r-20261124-100000-abcd"


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    plant = Plant(tmp_path)
    try:
        yield People(plant)
    finally:
        for name in list(plant.running):
            plant.stop(name)


def start(people: People) -> str:
    people.plant.start("cloud", "cloud")
    until(lambda: "ready" in people.plant.log("cloud"))
    return f"https://{HOST}:{people.port}/"


def propose(people: People, name: str) -> None:
    """A run that somebody wants, from another machine."""
    root = (people.folder / "cloud" / "ca" / "authority.crt").read_text()
    token = Account(HOST, people.port, root).sign_in(name, PASSWORD)["token"]
    account, model = Account(HOST, people.port, root, token), b"a model"
    account.put_blob(model)
    digest = digest_bytes(model)
    account.submit(
        RunSpec(
            run=RUN, project="pumps<img src=x onerror=alert(1)>", task="train", metric="all", rounds=9,
            strategy="fedavg", fogs={"mill-3": ("press-1",)}, model=digest, model_size=len(model), params=1,
            bundle=digest, bundle_size=len(model), seed=1, grid=Grid(32, -20), max_weight=100, deadline_s=60.0,
            quorum=1.0, settings={}, local=False,
        )
    )  # fmt: skip


#: Answers as the cloud does of a run that it began by itself, and whose gates were judged.
BY_ITSELF = """async (path, ...more) => {
  const answer = await window.real(path, ...more);
  if (path !== "/v1/runs") return answer;
  const gates = { decision: "fail", worst: { gate: "all min", site: "plant-6" } };
  return new Response(JSON.stringify((await answer.json()).map((run) => ({ ...run, why: "schedule nightly", gates }))));
}"""


def rounds(people: People, count: int) -> None:
    """What the cloud would note of rounds."""
    log = EventLog(people.folder / "cloud" / "state" / "events.sqlite")
    for number in range(1, count + 1):
        fields: dict[str, bool | int | float | str] = {"round": number, "loss": 1.0 / number, "took_part": 1}
        log.record(Event("cloud", f"{RUN}/round", 1000 * number, 1.0, "round", RUN, number, fields))
    log.close()


#: What the API would say of a rollout, and what it is asked: a rollout needs edges, which are not here.
ROLLOUTS = """
window.asked = "";
window.real ??= window.fetch.bind(window);
var one = { rollout: "ro-1", project: "pumps", version: 4, phase: "wave", wave: 2,
  waves: 3, why: "", began: 1 };
window.fetch = (path, given) => {
  if (!path.startsWith("/v1/rollouts")) return window.real(path, given);
  if (given.method === "POST") window.asked = JSON.stringify([path, JSON.parse(given.body)]);
  return Promise.resolve(new Response(JSON.stringify(given.method === "POST" ? {} : [one])));
};
"""


async def sign_in(page: Page, url: str, name: str) -> None:
    await page.open(url)
    await page.fill(name=name, password=PASSWORD)
    await page.click("#password button")
    await page.until("!document.querySelector('#who').hidden")


async def test_two_people_see_a_run_and_decide_on_it(people: People, tmp_path: Path) -> None:
    people.add("anna", "engineer")
    people.add("ben", "approver", "officer", "engineer")
    url = start(people)
    propose(people, "anna")
    async with browser(tmp_path) as page:
        await sign_in(page, url, "anna")
        await page.until("document.querySelector('#fleet').innerText === 'works'")
        assert "run r-20261124" in await page.until("document.querySelector('#proposals li')?.innerText")
        assert await page.run("document.querySelectorAll('#proposals button').length") == 0, "not one's own"
        assert await page.text("#audit") == ""
        await page.click("#sign-out")
        await page.until("!document.querySelector('#sign-in').hidden")
        assert await page.text("#proposals") == ""

        await sign_in(page, url, "ben")
        await page.click("#proposals button", "Approve")
        row = await page.until("document.querySelector('[data-run]')?.innerText")
        assert "running" in row
        assert "pumps<img" in row, "text stays text"
        rounds(people, 3)
        await page.until("!!document.querySelector('#runs polyline')")
        assert "3 of 9" in await page.text("#runs")
        await page.run(f"window.real = window.fetch; window.fetch = {BY_ITSELF}; 0")
        await page.until("document.querySelector('#runs').innerText.includes('schedule nightly')")
        assert "gates: fail, all min at plant-6" in await page.text("#runs")
        if kept := os.environ.get("REUNA_PICTURE"):
            await page.picture(Path(kept))
        await page.run(ROLLOUTS)
        await page.until("document.querySelector('[data-rollout]')?.innerText.includes('wave 2 of 3')")
        await page.click("#rollouts button", "pause")
        assert json.loads(await page.until("window.asked")) == ["/v1/rollouts/ro-1", {"order": "pause"}]
        await page.click("#runs button", "Stop")
        await page.until("!!document.querySelector('#runs td.cancelled')")
        await page.until("document.querySelector('#audit tbody').innerText.includes('proposal approved')")
        assert page.troubles == []
    assert "ben" in {each["decided_by"] for each in json.loads(people.reuna("ben", *listed(people)))}


def listed(people: People) -> tuple[str, ...]:
    people.login("ben")
    return "proposals", "list", "--json"


async def test_a_wrong_password_is_said_and_a_session_that_ends_ends_the_page(
    people: People, tmp_path: Path
) -> None:
    people.add("anna", "viewer")
    url = start(people)
    async with browser(tmp_path) as page:
        await page.open(url)
        await page.fill(name="anna", password="not the password at all")
        await page.click("#password button")
        await page.until("document.querySelector('#trouble').innerText.includes('do not belong together')")
        await page.fill(name="anna", password=PASSWORD)
        await page.click("#password button")
        await page.until("!document.querySelector('#who').hidden")
        people.reuna("root", "people", "disable", "anna", "--settings", "cloud/cloud.toml")
        await page.until("!document.querySelector('#sign-in').hidden")
        assert await page.text("#runs") == ""


async def test_somebody_comes_in_through_the_identity_provider(people: People, tmp_path: Path) -> None:
    with IdentityProvider(people.folder) as provider:
        people.with_provider(provider, CLIENT, SECRET)
        url = start(people)
        async with browser(tmp_path) as page:
            await page.open(url)
            await page.click("#at-provider")
            await page.until("document.querySelector('#name').innerText.includes('anna, engineer')")
            assert await page.run("location.href") == url, "no code is left in the address"
            await page.click("#sign-out")
            provider.claims |= {"groups": []}
            await page.click("#at-provider")
            await page.until(
                "document.querySelector('#trouble').innerText.includes('no group that has a role')"
            )


async def test_the_page_runs_no_script_but_its_own(people: People, tmp_path: Path) -> None:
    url = start(people)
    async with browser(tmp_path) as page:
        await page.open(url)
        await page.until("document.querySelector('#sign-in')?.checkVisibility()")
        for wrong in (
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.got = 1'}))",
            "document.body.append(Object.assign(document.createElement('script'), {src: 'https://127.0.0.1:1/x.js'}))",
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.got = 1\">')",
            "void fetch('https://127.0.0.1:1/').catch(() => 0)",
        ):
            before = len(page.troubles)
            await page.run(wrong)
            await asyncio.wait_for(more(page, before), 10)
        assert await page.run("window.got") is None
        assert all("Content Security Policy" in trouble for trouble in page.troubles), page.troubles


async def more(page: Page, before: int) -> None:
    while len(page.troubles) == before:
        await asyncio.sleep(0.02)
