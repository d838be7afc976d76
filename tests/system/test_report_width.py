"""The page of a run in a real browser: it fits a screen, and a telephone scrolls its tables and not the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.fleet.report import METHODS, render
from tests.finished import finished
from tests.system.browser import CHROMIUM, Page, browser

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`"),
]
SCREEN, TELEPHONE = 1100, 400  #: widths, pixels
SCROLLS = ".wide{overflow-x:auto}"
SCORES = dict.fromkeys(("all", "seen", "unseen", "false_alarms"), 1.0)  # the most that a task has
NODES = [f"plant-number-{number}" for number in range(12)]
LINKS = [f"{node} → fog-1" for node in NODES]


def page_of_a_run() -> str:
    return render(
        finished(
            sites=[{"site": node, "nodes": [node], **dict.fromkeys(METHODS, SCORES)} for node in NODES],
            flows=[{"link": link, "kind": "model_update", "bytes": 10**6, "messages": 99} for link in LINKS],
            refused_by_policy=[
                {"node": NODES[0], "kind": "log", "to": "uri/cloud", "rule": "flows[3]", "why": "no rule allows it", "noted": 1}
            ],
        )
    )  # fmt: skip


async def widths(page: Page, text: str, file: Path, width: int) -> tuple[int, int, int]:
    """Pixels that the page takes, that the table of sites takes, and that it is given."""
    await page.post(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    file.write_text(text, encoding="utf-8")
    await page.open(file.as_uri())
    await page.until(f"document.readyState == 'complete' && location.href == {file.as_uri()!r}")
    whole = await page.run("document.documentElement.scrollWidth")
    table = "document.querySelector('.sites')"
    return whole, await page.run(f"{table}.offsetWidth"), await page.run(f"{table}.parentElement.clientWidth")


async def test_the_page_of_a_run_fits_a_screen_and_a_telephone(tmp_path: Path) -> None:
    text = page_of_a_run()
    async with browser(tmp_path) as page:
        whole, table, given = await widths(page, text, tmp_path / "screen.html", SCREEN)
        assert whole <= SCREEN
        assert table == given, "nothing has to be scrolled"
        whole, table, given = await widths(page, text, tmp_path / "telephone.html", TELEPHONE)
        assert whole <= TELEPHONE
        assert table > given, "the table is scrolled, and not squeezed"
        planted = text.replace(SCROLLS, "")
        assert planted != text
        whole, *_ = await widths(page, planted, tmp_path / "planted.html", TELEPHONE)
        assert whole > TELEPHONE, "without that the page would be wider than the telephone"
