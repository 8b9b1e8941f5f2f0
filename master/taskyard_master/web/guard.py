"""Who may look: a token, a name that a stranger's page cannot borrow, and headers that keep pages apart.

A plain ASGI layer around the whole app. A browser shows the token once (`/?token=...`
or the form of `/login`) and gets a cookie; programs send `Authorization: Bearer`.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "taskyard"
OPEN = ("/healthz", "/readyz", "/login", "/static/style.css")  # need no token
_SAFE = ("GET", "HEAD")
_HEADERS = (
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
     b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with none at all, browsers hide a form's origin too
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


class Guard:
    """The app, for those who may look. `token` "" lets everybody in who gets past the Host check."""

    def __init__(self, app: App, token: str, hosts: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = {host.lower() for host in hosts}
        # The cookie is not the token itself, so a stolen one does not open /metrics.
        self.cookie = hmac.new(token.encode(), b"taskyard dashboard", sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message.get("headers", [])}
                extra = [pair for pair in _HEADERS if pair[0] not in present]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        if not self._named(headers.get("host", "")):
            return await _answer(sending, 421, "this is not a name of this dashboard")
        if scope["method"] not in _SAFE and not self._same_origin(headers):
            return await _answer(sending, 403, "a change has to come from the dashboard's own page")
        if scope["path"] not in OPEN and self._token and not self._known(headers):
            return await self._introduce(scope, headers, sending)
        return await self._app(scope, receive, sending)

    def _named(self, host: str) -> bool:
        """A page of another site that points its own name at us (DNS rebinding) comes with that name."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        return name.lower() in self._hosts

    def _same_origin(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] != headers.get("host"):
            return False
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")

    def _known(self, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "")
        if given.startswith("Bearer ") and self.is_token(given[7:].strip()):
            return True
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except CookieError:
            return False
        found = jar.get(COOKIE)
        return found is not None and hmac.compare_digest(found.value.encode(), self.cookie.encode())

    def is_token(self, given: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def set_cookie(self) -> str:
        """The header that lets a browser in."""
        return f"{COOKIE}={self.cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"

    async def _introduce(self, scope: Scope, headers: dict[str, str], send: Send) -> None:
        """A token in the address is taken once and leaves the address bar; else the form asks for it."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        token = query.pop("token", [""])[0]
        if scope["method"] == "GET" and token and self.is_token(token):
            rest = urlencode(query, doseq=True)
            place = scope["path"] + (f"?{rest}" if rest else "")
            return await _answer(send, 303, "", [("location", place), ("set-cookie", self.set_cookie())])
        if "text/html" in headers.get("accept", ""):
            return await _answer(send, 303, "", [("location", "/login")])
        return await _answer(
            send,
            401,
            "show the token: Authorization: Bearer TASKYARD_WEB_TOKEN",
            [("www-authenticate", "Bearer")],
        )


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
    body = json.dumps({"error": text}).encode()
    fields = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
