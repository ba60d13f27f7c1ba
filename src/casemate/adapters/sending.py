"""Requests to an endpoint: paced, repeated where a server asks for it, counted, and bounded in number, size and time.

What a server says is untrusted: answers have a largest size, unpacked, and a last moment, messages are cut and cleaned
before anybody reads them, no redirect is followed. Secrets come from the environment alone and are taken out of
whatever a server sends back.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from casemate.adapters.extras import need
from casemate.errors import BudgetExhausted, ConfigError, ModelError

__all__ = ["Sender", "Sending"]

_AGAIN = frozenset({429, 502, 503, 504})
_NO_ANSWER, _NOT_SENT = 0, -1  # in the place of a status
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0
_LARGEST = 64 << 20  # bytes of one answer, decompressed
_LARGEST_FAULT = 1 << 20  # bytes of it that are looked at
_MESSAGE = 200  # characters of it that are told
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Sending:
    """How to ask: `requests_per_second` at most, each within `timeout` seconds, `tries` at most for one batch.

    `patience`: seconds after which no batch is tried again. `queries`: most samples ever sent, tries counted each;
    None is without limit.
    """

    requests_per_second: float | None = None
    timeout: float = 30.0
    tries: int = 5
    patience: float = 120.0
    queries: int | None = None


@dataclass(slots=True)
class Sender:
    """A client of one endpoint, and the count of what it sent.

    `headers` name variables of the environment (see `_secrets`). `queries` are the samples sent, each try counted,
    `repeated` those of them that were sent before; `reserved` queries are kept from the limit. `before` queries were
    sent by an earlier process for the same audit, and count against the limit; `keep` is told the sum of both before
    anything is sent. `away` tells that a copy went to another process, where it counts for itself.
    """

    url: str
    how: Sending
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    away: bool = False
    queries: int = 0
    repeated: int = 0
    requests: int = 0
    reserved: int = 0
    before: int = 0
    keep: Callable[[int], None] | None = field(default=None, repr=False)
    _secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    _client: Any = field(default=None, repr=False)
    _last: float = field(default=float("-inf"), repr=False)
    _down: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        _check_url(self.url)
        self._secrets = _secrets(self.headers)

    def __reduce__(self) -> Any:
        """A copy for another process takes its secrets from the environment there, and counts for itself."""
        if self.how.queries is not None or self.how.requests_per_second is not None:
            raise ModelError(
                "expected an endpoint to stay in one process, got one sent to another: a budget and a pace hold for "
                "one; audit it with executor = 'inline'"
            )
        self.away = True
        return Sender, (self.url, self.how, dict(self.headers), True)

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            with contextlib.suppress(Exception):  # an interpreter that ends has taken the client apart already
                self._client.close()

    def ask(self, path: str = "", body: Any = None, samples: int = 0) -> Any:
        """The JSON that the endpoint answers to `body` (POST), or to nothing (GET), at its URL plus `path`.

        `samples` are charged for each try, but one that found no connection. Raises `BudgetExhausted` before the limit
        is passed, and `ModelError` for what is no answer.
        """
        if self._down:
            raise ModelError(self._down)
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        began, tries, sent = time.monotonic(), 0, 0
        while True:
            tries += 1
            self._charge(samples)
            status, found, wait = self._tried(path, content)
            if status == _NOT_SENT:
                self.queries -= samples
            else:
                sent += 1
                self.repeated += samples if sent > 1 else 0
            if 200 <= status < 300:
                return _parsed(found)
            if status > 0 and status not in _AGAIN:
                raise ModelError(self._refusal(status, found))
            pause = _backoff(tries) if wait is None else wait
            if tries >= self.how.tries or time.monotonic() + pause - began > self.how.patience:
                self._down = (
                    f"expected an answer from {self.url} within {self.how.tries} tries and {self.how.patience:g} s, "
                    f"got {self._said(status, found)} at try {tries}: start it, or ask slower with requests_per_second"
                )
                raise ModelError(self._down)
            time.sleep(pause)

    def _charge(self, samples: int) -> None:
        limit, used = self.how.queries, self.before + self.queries
        if samples and limit is not None and used + samples > limit - self.reserved:
            left = max(0, limit - self.reserved - used)
            raise BudgetExhausted(
                f"expected {samples} more queries to fit the {limit} that the endpoint may be sent, got {left} left: "
                "raise the budget or ask for less"
            )
        self.queries += samples
        if samples and self.keep is not None:
            self.keep(used + samples)

    def _tried(self, path: str, content: bytes | None) -> tuple[int, bytes, float | None]:
        """Status (or that there is none), body or complaint, and how long to wait as the server says."""
        httpx = need("httpx", "ask an endpoint")
        self._pace()
        self.requests += 1
        method = "GET" if content is None else "POST"
        try:
            with self._in_time(self._opened(httpx).stream(method, self.url + path, content=content)) as response:
                return response.status_code, self._body(response), _asked_wait(response.headers.get("retry-after"))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if "CERTIFICATE" in str(error).upper():
                raise ModelError(
                    f"expected a trusted certificate at {self.url}, got {self._clean(str(error))}: name the authority "
                    "that signed it in SSL_CERT_FILE"
                ) from None
            return _NOT_SENT, f"no connection ({self._clean(str(error))})".encode(), None
        except httpx.InvalidURL:
            raise ConfigError("expected model.url with a host that exists, got another name: mend it") from None
        except httpx.HTTPError as error:  # not chained: it holds the request, and with it the headers
            late = self._client is None  # `_in_time` took it
            said = f"no answer within {self.how.timeout:g} s" if late else f"{type(error).__name__} ({error})"
            return _NO_ANSWER, self._clean(said).encode(), None

    def _pace(self) -> None:
        rate = self.how.requests_per_second
        if rate is not None:
            time.sleep(max(0.0, self._last + 1 / rate - time.monotonic()))
            self._last = time.monotonic()

    def _opened(self, httpx: Any) -> Any:
        if self._client is None:
            sent = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
            self._client = httpx.Client(
                headers={**sent, **self._secrets},
                timeout=self.how.timeout,
                follow_redirects=False,
                trust_env=urlsplit(self.url).hostname not in _LOOPBACK,  # no proxy stands before this machine itself
            )
        return self._client

    @contextlib.contextmanager
    def _in_time(self, exchange: Any) -> Iterator[Any]:
        """The response, its connection broken off after `timeout`: the client's own limit is one for each byte."""

        def end() -> None:
            client, self._client = self._client, None
            client.close()

        alarm = threading.Timer(self.how.timeout, end)
        alarm.daemon = True
        alarm.start()
        try:
            with exchange as response:
                yield response
        finally:
            alarm.cancel()
            alarm.join()

    def _body(self, response: Any) -> bytes:
        """The body, unpacked no further than to the largest size.

        The client's own unpacking is not used: it has no limit, and an answer may be packed several times over.
        """
        packing = response.headers.get("content-encoding", "").strip().lower() or "identity"
        if packing not in ("gzip", "identity"):
            raise ModelError(
                f"expected an answer plain or in gzip, got {self._clean(packing)}: turn the server's compression off"
            )
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress if packing == "gzip" else None
        parts, size = [], 0
        try:
            for raw in response.iter_raw():
                parts.append(raw if unpack is None else unpack(raw, _LARGEST + 1 - size))
                size += len(parts[-1])
                if size > _LARGEST:
                    raise ModelError(
                        f"expected an answer under {_LARGEST >> 20} MB, got more: make model.batch smaller"
                    )
        except zlib.error:
            raise ModelError(
                "expected an answer in gzip as its header says, got other bytes: mend the server"
            ) from None
        return _without(b"".join(parts), self._secrets)

    def _refusal(self, status: int, found: bytes) -> str:
        mends = {
            401: "set the header that it wants in model.headers, from the environment",
            403: "set the header that it wants in model.headers, from the environment",
            404: "mend model.url",
            413: "make model.batch smaller",
        }
        mend = "name the URL it leads to" if 300 <= status < 400 else "hold the data and the request against the model"
        return f"expected an answer from {self.url}, got {self._said(status, found)}: {mends.get(status, mend)}"

    def _said(self, status: int, found: bytes) -> str:
        words = self._clean(_told(found))
        if status <= 0:
            return words
        return f"HTTP {status} ({words})" if words else f"HTTP {status}"

    def _clean(self, text: str) -> str:
        text = _without(text.encode(errors="replace"), self._secrets).decode()
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= _MESSAGE else text[:_MESSAGE] + "..."


def _secrets(headers: Any) -> dict[str, str]:
    """The headers with the values that the environment holds: `{"Authorization": "env:MY_TOKEN"}` names the variable.

    Raises `ConfigError` for a value that is written out, a variable that is not set or cannot be a header, and a header
    that the client sets itself; no message repeats a value.
    """
    if not isinstance(headers, Mapping):
        raise ConfigError(
            'expected a table as model.headers, got another type: write { Authorization = "env:MY_TOKEN" }'
        )
    found = {}
    for name, value in headers.items():
        if not _NAME.fullmatch(str(name)) or str(name).lower() in _OURS:
            raise ConfigError(f"expected the name of a header to add, got {str(name)[:40]!r}: leave it out")
        variable = value.removeprefix("env:") if isinstance(value, str) and value.startswith("env:") else ""
        if not variable.isidentifier():
            raise ConfigError(
                f'expected the header {name} as "env:VARIABLE", got its value: keep secrets in the environment, never '
                "in casemate.toml"
            )
        secret = os.environ.get(variable, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            what = "something that no header can hold" if secret else "nothing"
            raise ConfigError(f"expected the header {name} in the environment variable {variable}, got {what}: set it")
        found[str(name)] = secret
    return found


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or "\\" in url or not url.isprintable() or " " in url:
        raise ConfigError("expected model.url as http://HOST/PATH or https://HOST/PATH, got another form: mend it")
    if parts.username is not None or parts.query or parts.fragment or "?" in url:
        raise ConfigError(
            "expected model.url without user name, query and fragment, got one with: the report names it, so put "
            "secrets into model.headers, from the environment"
        )


def _without(found: bytes, secrets: Mapping[str, str]) -> bytes:
    """What a server sent without the secrets, should it send them back: what it says may come into a report.

    A secret of two words is a scheme and what counts. Shorter ones than 8 characters stay: a prediction may hold them.
    """
    for value in secrets.values():
        for piece in (value, value.partition(" ")[2].strip()):
            if len(piece) >= 8:
                found = found.replace(piece.encode(), b"***")
                found = re.sub(_escaped(piece), b"***", found) if b"\\" in found else found
    return found


def _escaped(piece: str) -> bytes:
    """A pattern of an ASCII text, any of its characters escaped as JSON may do it."""
    return b"".join(rb"(?:\\?%s|\\u00(?i:%02x))" % (re.escape(c.encode()), ord(c)) for c in piece)


def _backoff(tries: int) -> float:
    """Exponential, with full jitter above the half: clients that failed together do not come back together."""
    longest = float(min(_LONGEST_WAIT, _FIRST_WAIT * 2**tries))
    return longest * (0.5 + random.random() / 2)


def _asked_wait(header: str | None) -> float | None:
    """Seconds of a `Retry-After` header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header[:12])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _parsed(found: bytes) -> Any:
    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(found, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        said = "".join(c if c.isprintable() else " " for c in str(error))[:80]
        raise ModelError(
            f"expected JSON from the endpoint, got a fault ({said}): mend the endpoint or its URL"
        ) from None


def _told(found: bytes) -> str:
    """The message in an error's body: the field that servers use for it, else the body."""
    text = found[:_LARGEST_FAULT].decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "detail", "message"):
        if isinstance(body, dict) and name in body:
            return body[name] if isinstance(body[name], str) else json.dumps(body[name])
    return text
