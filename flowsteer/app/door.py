"""The server's door: what comes over HTTP is looked at before Gradio sees it.

Gradio checks a request while it works on it, and writes a traceback for each that is wrong. Here
only the routes that the page and its endpoints need are open, a body has a size, a depth and a
form, and what is turned away, or fails all the same, is one line of the log.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    import gradio as gr

    from flowsteer.app.sessions import Sessions

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024  # of a body; the longest prompt and six columns take 8 kB
MOST_DEPTH = 16  # of lists and objects in one another
API = "/gradio_api/"
OPEN = (
    "api", "app_id", "call", "cancel", "heartbeat", "info", "login_check", "mcp", "openapi.json",
    "queue", "reset", "run", "startup-events", "theme.css", "user",
)  # fmt: skip
"""First words of the routes behind `API` that answer; the others read, write or fetch files."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Refused(Exception):
    """A request that is turned away, with its HTTP status and the reason in one line."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Door:
    """ASGI middleware around all of Gradio's routes.

    Args:
        app: the application inside.
        page: whose functions may be called.
        sessions: is told who comes and who listens.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, sessions: Sessions):
        self.app, self.page, self.sessions = app, page, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = ended = False

        async def send_on(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            words = self._route(scope)
            if scope["method"] == "POST" and words[:1] != ["mcp"]:
                body = await _read(scope, receive)
                self._check(words, body)
                receive = _again(body, receive)
            with self.sessions.listening(self._listener(words, scope)):
                await self.app(scope, receive, send_on)
        except Refused as refusal:
            _log(scope, "was refused", str(refusal))
            answer = {"detail": str(refusal), "error": str(refusal)}
            await JSONResponse(answer, refusal.status)(scope, receive, send)
        except Exception as error:
            # a status of Starlette's, such as of a stream whose session is gone, is no fault here
            _log(scope, f"failed with {type(error).__name__}", str(error))
            if not begun:
                told = f"The request failed ({type(error).__name__})."
                await JSONResponse({"detail": told, "error": told}, 500)(scope, receive, send)
            elif not ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _route(self, scope: Scope) -> list[str]:
        """The words of a path behind `API`; none for the page itself and its parts."""
        path, method = scope["path"], scope["method"]
        words = path.removeprefix(API).strip("/").split("/") if path.startswith(API) else []
        if words[:1] == ["upload"]:
            raise Refused(413, "this app takes no files")
        if words and words[0] not in OPEN:
            raise Refused(404, "this app has no such address")
        if not words and method not in ("GET", "HEAD"):
            raise Refused(405, f"{method} is not for this address")
        return words

    def _check(self, words: list[str], body: bytes) -> None:
        """Refuse a body that no page and no client of the endpoints sends.

        Raises:
            Refused: with the reason.
        """
        sent = _parse(body)
        if words[0] == "reset":  # it does nothing
            return
        if words[0] == "cancel":
            _check_names(sent, "event_id", "session_hash")
            if not self.sessions.has_event(
                sent["session_hash"], sent.get("fn_index"), sent["event_id"]
            ):
                raise Refused(404, "there is no such event")
            return
        by_name = words[0] in ("run", "api", "call")
        names = {fn.api_name: fn for fn in self.page.fns.values()}
        if words[:2] == ["call", "v2"]:
            if names.get(words[-1]) is None:
                raise Refused(404, "there is no endpoint of this name")
            return
        number = sent.get("fn_index")
        if number is None and by_name:
            function = names.get(words[-1])
        else:
            function = self.page.fns.get(number) if type(number) is int else None
        if function is None:
            raise Refused(404, "there is no function of this name or fn_index")
        if words[0] in ("run", "api") and function.queue:
            raise Refused(404, "this function is called through /gradio_api/call or queue/join")
        self._check_call(sent, function, session_needed=words[0] == "queue")
        if sent.get("session_hash") is not None:
            self.sessions.seen(sent["session_hash"])

    def _check_call(self, sent: Mapping[str, Any], function: Any, session_needed: bool) -> None:
        """What a call says of itself, and as many values as the function has inputs."""
        for name in ("session_hash", "event_id"):
            if sent.get(name) is not None or (session_needed and name == "session_hash"):
                _check_names(sent, name)
        if sent.get("batched") or type(sent.get("trigger_id")) not in (int, type(None)):
            raise Refused(400, "batched and trigger_id are the page's own")
        data, inputs = sent.get("data"), function.inputs
        counts = {len(inputs), sum(not block.skip_api for block in inputs)}
        if not isinstance(data, list) or len(data) not in counts:
            raise Refused(400, f"data must be a list of {max(counts)} values")

    def _listener(self, words: list[str], scope: Scope) -> str | None:
        """The session whose messages a request listens to."""
        if scope["method"] != "GET":
            return None
        if words == ["queue", "data"]:
            found = re.search(rb"(?:^|&)session_hash=([^&]*)", scope["query_string"])
            return found[1].decode("latin-1") if found else None
        if words[:1] == ["call"] and len(words) > 2:
            return self.sessions.of_event(words[-1])
        return None


def _check_names(sent: Mapping[str, Any], *names: str) -> None:
    for name in names:
        value = sent.get(name)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise Refused(400, f"{name} must be 1 to 64 letters, digits, hyphens or underscores")


def _parse(body: bytes) -> dict[str, Any]:
    """The object in a body, without what Gradio would take for a file.

    Raises:
        Refused: if it is no JSON object, too deep, or holds what no text can be.
    """
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MOST_DEPTH:
        raise Refused(400, f"the body has {deepest:,} lists in one another; {MOST_DEPTH} may be")
    try:
        sent = json.loads(body)
        json.dumps(sent, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except ValueError:  # a number of thousands of digits too
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(sent, dict):
        raise Refused(400, "the body must be a JSON object")
    if _holds_file(sent):
        raise Refused(400, "this app takes no files, and no paths of them")
    return sent


def _holds_file(value: Any) -> bool:
    if isinstance(value, dict):
        return {"path", "meta"} <= value.keys() or any(map(_holds_file, value.values()))
    return isinstance(value, list) and any(map(_holds_file, value))


async def _read(scope: Scope, receive: Receive) -> bytes:
    """A whole body of at most `MOST_BYTES`.

    Raises:
        Refused: if it is longer, or the client has gone.
    """
    parts: list[bytes] = []
    length = int(dict(scope["headers"]).get(b"content-length", b"0"))
    while length <= MOST_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client has gone")
        parts.append(message.get("body", b""))
        length = sum(map(len, parts))
        if not message.get("more_body"):
            break
    if length > MOST_BYTES:
        raise Refused(413, f"the body is longer than {MOST_BYTES // 1024} kB")
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, and then what comes."""
    read = False

    async def give() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _log(scope: Scope, what: str, why: str) -> None:
    """One line, whatever was sent."""
    path, why = ascii(scope["path"])[1:-1][:80], ascii(why)[1:-1][:200]
    logger.warning("%s %s %s: %s", scope["method"], path, what, why)
