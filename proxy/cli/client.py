"""Asks a running proxy's admin listener. Small on purpose: a command should answer at once."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError

TIMEOUT: Final = 60.0
"""Seconds: a switch to `enriched` asks Alertmanager first, and finding a fingerprint may take half as long."""


class RequestFailed(Exception):
    """The proxy could not be asked, or said no. The text is for the operator, on one line."""


class AdminClient:
    """Speaks to one proxy. No proxy of the environment's comes in between, and no redirect takes the token away."""

    def __init__(self, url: str, token: str, *, tls: ssl.SSLContext | None = None, timeout: float = TIMEOUT) -> None:
        """`tls` is spoken with at an `https://` URL; None: as the system does."""
        self.url = url
        self._token = token
        self._timeout = timeout
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirects(), urllib.request.HTTPSHandler(context=tls)
        )

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`. Raises RequestFailed."""
        return self._ask(path, None)

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Post `content`; return the JSON object in the answer. Raises RequestFailed."""
        return self._ask(path, json.dumps(content).encode())

    def _ask(self, path: str, content: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        if self._token:
            if not self._token.isprintable():
                raise RequestFailed("web.admin_token holds characters that no header can: it is not the proxy's token")
            # urllib writes headers as Latin-1, and the proxy compares bytes of UTF-8.
            headers["Authorization"] = f"Bearer {self._token}".encode().decode("latin-1")
        request = urllib.request.Request(self.url + path, content, headers)  # noqa: S310 # http and https alone
        try:
            with self._open(request) as answer:
                status, body = answer.status, answer.read()
        except (OSError, HTTPException) as exc:
            raise RequestFailed(f"cannot reach the proxy at {self.url}: {_why(exc)}; {_WHERE}") from None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if status == 200 and isinstance(found, dict):
            return found
        raise RequestFailed(self._refusal(status, found.get("error") if isinstance(found, dict) else None))

    def _open(self, request: urllib.request.Request) -> Any:
        try:
            return self._opener.open(request, timeout=self._timeout)
        except HTTPError as exc:
            return exc  # an answer as well, with something to read

    def _refusal(self, status: int, said: Any) -> str:
        if status == 401 and not isinstance(said, str):
            return f"the proxy at {self.url} has users, and wants of commands its web.admin_token; {_ADMITTED}"
        if not isinstance(said, str):
            return f"{self.url} does not answer as a proxy's admin listener does (status {status}); {_WHERE}"
        if status == 401:
            other = "takes another token than web.admin_token is here" if self._token else "wants its web.admin_token"
            return f"the proxy at {self.url} {other}; {_ADMITTED}"
        if status == 403:
            return f"the proxy at {self.url} does not let us in: {said}; {_ADMITTED}"
        return said


_WHERE: Final = (
    "is it running, and is that its web.admin_listen_address? Name it with --proxy.url, or its settings with"
    " --config.file or WEB_ADMIN_LISTEN_ADDRESS"
)
_ADMITTED: Final = "set WEB_ADMIN_TOKEN or WEB_ADMIN_TOKEN_FILE, or name the proxy's settings with --config.file"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _why(exc: OSError | HTTPException) -> str:
    cause = exc.reason if isinstance(exc, URLError) else exc
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({cause.verify_message}); name its CA with --proxy.ca-file"
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
