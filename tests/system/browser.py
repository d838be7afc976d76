"""A real browser without a window, over the DevTools protocol: what a person sees and clicks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), "")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en",
    "--ignore-certificate-errors",  # its store does not know the fleet's root
    "--remote-debugging-port=0", "about:blank",
)  # fmt: skip


class Page:
    """One tab. ``troubles`` are errors of the page, what its policy kept out among them."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.troubles: list[str] = []
        self._line = line
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        async for message in self._line:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Runtime.exceptionThrown":
                self.troubles.append(json.dumps(said["params"]["exceptionDetails"])[:500])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                text = said["params"]["entry"]["text"]
                self.troubles += [] if "401" in text else [text]  # it asks whether somebody is signed in
            elif said["method"] == "Page.javascriptDialogOpening":
                self.post("Page.handleJavaScriptDialog", accept=True)

    def post(self, method: str, **params: Any) -> asyncio.Future[Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        sending = self._line.send_json({"id": number, "method": method, "params": params})
        asyncio.ensure_future(sending).add_done_callback(lambda _: None)  # its answer is waited for
        return self._answers[number]

    async def run(self, script: str) -> Any:
        answer = await self.post("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer["result"], answer["result"]["exceptionDetails"]
        return answer["result"]["result"].get("value")

    async def open(self, url: str) -> None:
        await self.post("Page.navigate", url=url)

    async def until(self, script: str, seconds: float = 20.0) -> Any:
        """Until a script says something, while pages come and go."""
        end, found = time.monotonic() + seconds, None
        while not found:
            assert time.monotonic() < end, (script, await self.run("document.body.innerText"), self.troubles)
            await asyncio.sleep(0.05)
            with contextlib.suppress(AssertionError):
                found = await self.run(script)
        return found

    async def text(self, selector: str) -> str:
        """What of an element can be seen; empty when nothing can."""
        found = f"document.querySelector({selector!r})"
        return str(await self.run(f"{found}?.checkVisibility() ? {found}.innerText : ''"))

    async def click(self, selector: str, says: str = "") -> None:
        await self.until(
            f"[...document.querySelectorAll({selector!r})]"
            f".filter(e => e.checkVisibility() && e.textContent.includes({says!r}))"
            ".slice(0, 1).map(e => e.click() ?? true).pop()"
        )

    async def fill(self, **values: str) -> None:
        for name, value in values.items():
            await self.until(f"document.querySelector('[name={name}]')?.checkVisibility()")
            await self.run(f"document.querySelector('[name={name}]').value = {json.dumps(value)}")

    async def picture(self, file: Path) -> None:
        """What it looks like, as PNG."""
        import base64

        answer = await self.post("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["result"]["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """One tab of a browser of its own, which leaves nothing behind."""
    with (
        (folder / "browser.log").open("wb") as log,
        tempfile.TemporaryDirectory(prefix="browser-") as short,  # its socket's path must be
        subprocess.Popen(
            [CHROMIUM, f"--user-data-dir={folder / 'profile'}", *FLAGS],
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": short},
        ) as process,
    ):
        try:
            port = await listening(folder / "profile" / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as line:
                    page = Page(line)
                    listening_on = asyncio.create_task(page.listen())
                    for domain in ("Page", "Runtime", "Log"):
                        await page.post(f"{domain}.enable")
                    yield page
                    await line.close()
                    await listening_on
        finally:
            process.terminate()
            process.wait(20)


async def listening(file: Path) -> int:
    """The port that a browser says it listens on."""
    end = time.monotonic() + 30
    while not (file.exists() and "\n" in (text := file.read_text())):
        assert time.monotonic() < end, "the browser does not come up"
        await asyncio.sleep(0.05)
    return int(text.split("\n")[0])
