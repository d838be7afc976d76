"""The console: one page that asks the same API as everybody, with the session of whoever looks at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

from reuna.adapters.operator_api.sessions import check_certificate

PAGES = {
    "/": ("console.html", "text/html"),
    "/console.js": ("console.js", "text/javascript"),
    "/console.css": ("console.css", "text/css"),
}
#: What the page may do: run our script, ask our API. Nothing from anywhere else, nothing inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def add_console(app: web.Application) -> None:
    """Serve the page beside the API; it holds nothing by itself, so that anybody may have it."""
    for path, (name, kind) in PAGES.items():
        app.router.add_get(
            path, _page((files(__package__) / "page" / name).read_text(encoding="utf-8"), kind)
        )


def _page(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        check_certificate(request)
        headers = {"Content-Security-Policy": POLICY}
        return web.Response(text=text, content_type=kind, charset="utf-8", headers=headers)

    return handler
