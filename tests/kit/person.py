"""Somebody with a browser: keeps cookies as browsers do, and goes where an answer sends them, one step at a time."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import httpx

PAGE = "https://reconciler.example.com"
HTML = {"accept": "text/html"}


@contextmanager
def connected(ca_file: str) -> Iterator[httpx.Client]:
    """What any number of persons ask with. It sends none of the page's cookies by itself: they are for https alone."""
    with httpx.Client(verify=ssl.create_default_context(cafile=ca_file), trust_env=False, timeout=60) as client:
        yield client


@dataclass
class Person:
    """`at`: where the page listens, which is `PAGE` for everybody; all else is the issuer's."""

    at: tuple[str, int]
    client: httpx.Client
    cookies: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # every Set-Cookie
    seen: list[str] = field(default_factory=list)  # every address

    def ask(self, place: str, method: str = "GET", **headers: str) -> httpx.Response:
        """One request, of the page by its path."""
        address = PAGE + place if place.startswith("/") else place
        self.seen.append(address)
        url = urlsplit(address)
        if f"{url.scheme}://{url.netloc}" != PAGE:
            return self.client.request(method, address)
        kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        said = {**HTML, "host": url.netloc, **({"cookie": kept} if kept else {}), **headers}
        real = f"http://{self.at[0]}:{self.at[1]}{url.path}" + (f"?{url.query}" if url.query else "")
        answer = self.client.request(method, real, headers=said)
        for line in answer.headers.get_list("set-cookie"):
            self.said.append(line)
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    def follow(self, place: str, until: str = "") -> httpx.Response:
        """Ask, and go on to where it leads; with `until` not beyond an answer that leads to an address with that in it."""
        for _ in range(10):
            answer = self.ask(place)
            place = answer.headers.get("location", "")
            if not place or (until and until in place):
                return answer
        raise AssertionError(self.seen)

    def code(self, place: str = "/") -> str:
        """Log in, up to the address that the issuer sends the browser back to."""
        return str(self.follow(place, "/login/callback?").headers["location"])
