"""Logging in to the status page: a real listener, a real issuer over https, and a browser that does one step at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from reconciler.cli import cli
from reconciler.config.controller import Http
from reconciler.oidc import keys, provider
from reconciler.web.door import Door
from reconciler.web.login import ATTEMPT, ATTEMPTS, COOKIE, LogIn, then_of
from reconciler.web.rates import Rate
from reconciler.web.sessions import EACH, Sessions
from tests.kit.issuer import CLIENT, SECRET, SUBJECT, Issuer, rsa_key
from tests.kit.person import PAGE, Person, connected
from tests.kit.sample import NOW
from tests.kit.served import Served, serve

AT = NOW.timestamp()
OTHER = rsa_key()
MANY = Rate(1e6, 1e6)


@dataclass
class Seconds:
    time: float = 1000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Place:
    """The page behind a login, on a loopback where something else would end TLS."""

    served: Served
    issuer: Issuer
    client: httpx.Client
    at: tuple[str, int] = ("", 0)
    clock: Seconds = field(default_factory=Seconds)

    def person(self) -> Person:
        return Person(self.at, self.client)

    def token(self, **claims: Any) -> str:
        return self.issuer.token(now=AT, **claims)

    @property
    def log(self) -> str:
        return self.served.installation.said.getvalue()

    def counted(self, result: str) -> float:
        return float(self.served.installation.observer.logins.labels(result)._value.get())


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    one = Issuer(tmp_path_factory.mktemp("issuer"))
    yield one
    one.close()


@pytest.fixture
def issuer(of_all: Issuer) -> Issuer:
    """As it was made, but for its keys."""
    of_all.away, of_all.described, of_all.published, of_all.keys = False, {}, None, {"one": of_all.keys["one"]}
    of_all.person = {"sub": "u-1", "email": "ann@example.com", "email_verified": True, "name": "Ann"}
    of_all.made = lambda claims: of_all.token(now=AT, **claims)
    of_all.asked.clear()
    return of_all


@contextmanager
def open_place(
    folder: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, rate: Rate = MANY, **http: Any
) -> Iterator[Place]:
    one = serve(folder)
    with one.stack, connected(str(issuer.ca_file)) as client:
        place = Place(one, issuer, client)
        monkeypatch.setattr("reconciler.web.door.Sessions", lambda life: Sessions(life, place.clock))
        monkeypatch.setattr(
            "reconciler.web.door.Provider", lambda config, now: provider.Provider(config, now, place.clock)
        )
        monkeypatch.setattr(
            "reconciler.web.door.LogIn",
            lambda config, asked, sessions, said: LogIn(config, asked, sessions, said, place.clock, rate),
        )
        config = Http.model_validate({"listen": "127.0.0.1:0", **http}, context={"folder": folder})
        installation = one.installation
        with Door(config, installation, installation.pulse, installation.observer, installation.clock.now) as at:
            place.at = at
            yield place


@pytest.fixture
def place(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    oidc = issuer.login(address=PAGE, groups=["platform"])
    with open_place(tmp_path, issuer, monkeypatch, oidc=oidc) as one:
        yield one


def asked_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


# --- in, and out ---------------------------------------------------------------------------------------------------


def test_whoever_logs_in_comes_back_to_where_they_were_and_logs_out(place: Place) -> None:
    ann = place.person()
    answer = ann.follow("/journal?scope=prod%2Fdns&actor=a")
    assert answer.status_code == 200
    assert ann.seen[-1] == f"{PAGE}/journal?scope=prod%2Fdns&actor=a"
    assert "ann@example.com" in answer.text
    assert 'action="/logout"' in answer.text
    (cookie,) = [line for line in ann.said if line.startswith(f"{COOKIE}=")]
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=28800"):
        assert word in cookie
    assert "Domain" not in cookie
    assert list(ann.cookies) == [COOKIE]
    assert (place.counted("in"), place.counted("refused")) == (1, 0)

    name = ann.cookies[COOKIE]
    assert ann.ask("/logout").status_code == 405
    assert ann.ask("/logout", "POST").headers["location"] == f"{PAGE}/logged-out"
    assert ann.cookies == {}
    assert "logged out of this page" in ann.ask("/logged-out").text
    ann.cookies[COOKIE] = name
    assert ann.ask("/").status_code == 302
    assert place.counted("out") == 1


def test_what_is_asked_of_the_issuer(place: Place) -> None:
    one, other = (asked_of(place.person().follow("/", "/authorize?").headers["location"]) for _ in range(2))
    assert one["redirect_uri"] == f"{PAGE}/login/callback"
    assert one["scope"] == "openid profile email"
    assert one["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert len(one[name]) == 43
        assert one[name] != other[name]


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/api/v1/status", "/stream", "/none"])
def test_nothing_is_answered_to_whoever_is_not_logged_in(place: Place, path: str) -> None:
    nobody = place.person()
    for cookie in ("", f"{COOKIE}=", f"{COOKIE}={'x' * 43}", "session=1"):
        answer = nobody.ask(path, accept="*/*", **({"cookie": cookie} if cookie else {}))
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert nobody.ask(path, authorization="Bearer x").status_code == 401
    assert nobody.ask(path, "POST").status_code == 405
    assert nobody.ask(path, **{"sec-fetch-mode": "cors"}).status_code == 401
    assert nobody.ask("/healthz").text == "ok\n"
    assert nobody.ask("/static/page.css").status_code == 200


def test_a_session_ends_by_the_clock_and_a_new_login_is_a_new_session(place: Place) -> None:
    ann = place.person()
    ann.follow("/")
    first = ann.cookies[COOKIE]
    place.clock.time += timedelta(hours=8).total_seconds() - 1
    assert ann.ask("/").status_code == 200
    place.clock.time += 1
    assert ann.ask("/").status_code == 302
    assert ann.follow("/").status_code == 200
    assert ann.cookies[COOKIE] != first


def test_a_session_that_was_put_into_a_browser_is_not_the_one_that_is_logged_in(place: Place) -> None:
    ann, evil = place.person(), place.person()
    ann.cookies[COOKIE] = "A" * 43
    ann.follow("/")
    assert ann.cookies[COOKIE] != "A" * 43
    evil.follow("/")  # one of evil's own, which ann's browser is made to have
    mallory = evil.cookies[COOKIE]
    ann.cookies[COOKIE] = mallory
    back = ann.ask("/login?then=/stopped")
    assert back.headers["location"] == f"{PAGE}/stopped"  # whoever is logged in, is
    ann.ask("/logout", "POST")
    ann.follow("/")
    evil.cookies[COOKIE] = mallory
    assert evil.ask("/").status_code == 302


def test_a_stream_ends_with_its_session(place: Place) -> None:
    ann = place.person()
    ann.follow("/")
    url = f"http://{place.at[0]}:{place.at[1]}/stream"
    headers = {"host": urlsplit(PAGE).netloc, "cookie": f"{COOKIE}={ann.cookies[COOKIE]}"}
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=30) as stream:
        parts = stream.iter_bytes()
        assert b"event: changed" in next(parts)
        ann.ask("/logout", "POST")
        place.served.installation.pulse.tell()
        assert list(parts) == []


# --- who may look --------------------------------------------------------------------------------------------------

PERSONS: dict[str, tuple[dict[str, Any], int]] = {
    "listed": ({}, 200),
    "listed, not verified": ({"email_verified": False}, 403),
    "listed, nothing said of it": ({"email_verified": None}, 403),
    "listed, verified as a text": ({"email_verified": "true"}, 403),
    "in capitals": ({"email": "Ann@example.com"}, 403),
    "somebody else": ({"email": "bo@example.com"}, 403),
    "in a group": ({"email": "bo@example.com", "groups": ["sales", "platform"]}, 200),
    "in a group, alone": ({"email": None, "groups": "platform"}, 200),
    "in another group": ({"email": "bo@example.com", "groups": ["platform2", "/platform"]}, 403),
    "groups of another form": ({"email": "bo@example.com", "groups": {"platform": True}}, 403),
    "groups in groups": ({"email": "bo@example.com", "groups": [["platform"], None, 1]}, 403),
    "an email that is a list": ({"email": ["ann@example.com"]}, 403),
}


@pytest.mark.parametrize("case", PERSONS)
def test_who_of_the_issuers_people_may_look(place: Place, case: str) -> None:
    said, code = PERSONS[case]
    place.issuer.person = {**place.issuer.person, **said}
    person = place.person()
    answer = person.follow("/")
    assert answer.status_code == code
    assert (COOKIE in person.cookies) == (code == 200)
    assert place.counted("forbidden") == (code == 403)


def test_everybody_must_have_the_claims_that_are_configured(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    oidc = issuer.login(address=PAGE, users=[], claims={"hd": "example.com"}, user_claim="name", session="5m")
    with open_place(tmp_path, issuer, monkeypatch, oidc=oidc) as place:
        assert place.person().follow("/").status_code == 403
        issuer.person |= {"hd": "example.com", "name": "<b>An\u202en\n{}"}
        answer = place.person().follow("/")
        assert answer.status_code == 200
        assert "&lt;b&gt;An?n?{}" in answer.text
        assert "\u202e" not in place.log


# --- attacks -------------------------------------------------------------------------------------------------------


def forged(header: dict[str, Any], claims: dict[str, Any]) -> str:
    def part(said: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}."


TOKENS: dict[str, Callable[[Issuer, dict[str, Any]], str]] = {
    "no nonce": lambda i, c: i.token(now=AT, **{**c, "nonce": None}),
    "another login's nonce": lambda i, c: i.token(now=AT, **{**c, "nonce": "n" * 43}),
    "a nonce that is no text": lambda i, c: i.token(now=AT, **{**c, "nonce": [c["nonce"]]}),
    "another audience": lambda i, c: i.token(now=AT, **{**c, "aud": "other"}),
    "another audience first, and its party": lambda i, c: i.token(
        now=AT, **{**c, "aud": [CLIENT, "other"], "azp": "other"}
    ),
    "several audiences, and no party": lambda i, c: i.token(now=AT, **{**c, "aud": [CLIENT, "other"]}),
    "another party": lambda i, c: i.token(now=AT, **{**c, "azp": "other"}),
    "another issuer": lambda i, c: i.token(now=AT, **{**c, "iss": "https://evil.example"}),
    "expired": lambda i, c: i.token(now=AT - 400, **c),
    "not yet": lambda i, c: i.token(now=AT + 400, **c),
    "no subject": lambda i, c: i.token(now=AT, **{**c, "sub": None}),
    "alg none": lambda i, c: forged({"alg": "none", "kid": "one"}, i.claims(AT, **c)),
    "signed by another": lambda i, c: i.token(key=OTHER, now=AT, **c),
    "no token": lambda _i, _c: "x",
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_token_that_proves_nothing_logs_nobody_in(place: Place, case: str) -> None:
    made = []

    def make(claims: dict[str, Any]) -> str:
        made.append(TOKENS[case](place.issuer, claims))
        return made[0]

    place.issuer.made = make
    ann = place.person()
    answer = ann.follow("/")
    assert (answer.status_code, place.counted("refused")) == (400, 1)
    assert ann.cookies == {}
    assert made[0] == "x" or made[0] not in answer.text + place.log


def test_an_audience_may_be_a_list_that_has_only_us_or_says_who_asked(place: Place) -> None:
    for more in ({"aud": [CLIENT]}, {"aud": [CLIENT, "other"], "azp": CLIENT}):
        place.issuer.person |= more
        assert place.person().follow("/").status_code == 200


def test_a_state_counts_once_in_the_browser_that_has_it_and_for_ten_minutes(place: Place) -> None:
    ann, evil = place.person(), place.person()
    back = ann.code()
    kept = dict(ann.cookies)
    assert evil.follow(back).status_code == 400  # a code that was stolen
    evil.code()
    assert evil.follow(back).status_code == 400  # with a login of evil's own
    assert place.issuer.codes  # it was not even shown to the issuer
    assert ann.follow(back).status_code == 200
    ann.cookies = dict(kept)
    asked = place.issuer.asked.count("/token")
    assert ann.follow(back).status_code == 400  # replayed, with its cookie
    assert ann.follow(back.replace("code=", "code=x")).status_code == 400
    assert place.issuer.asked.count("/token") == asked
    late = place.person()
    back = late.code()
    place.clock.time += 601
    assert late.follow(back).status_code == 400


def test_the_code_of_another_login_is_worth_nothing(place: Place) -> None:
    ann, evil = place.person(), place.person()
    code = asked_of(ann.code())["code"]
    back = evil.code()
    answer = evil.follow(back.replace(asked_of(back)["code"], code))
    assert (answer.status_code, evil.cookies) == (503, {})
    assert "invalid_grant" in place.log


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("error=access_denied&error_description=%3Cb%3E", 403),
        ("error=%3Cscript%3E", 403),
        ("", 403),
        ("code=" + "x" * 5000, 403),
        ("code=x&iss=https%3A%2F%2Fevil.example", 400),
    ],
)
def test_what_an_issuer_brings_instead_of_a_code(place: Place, more: str, code: int) -> None:
    ann = place.person()
    state = asked_of(ann.code())["state"]
    answer = ann.ask(f"/login/callback?state={state}&{more}")
    assert (answer.status_code, ann.cookies) == (code, {})
    assert "<b>" not in answer.text
    assert "<script>" not in answer.text + place.log


EVIL = [
    "//evil.example",
    "///evil",
    "/\\evil",
    "\\\\evil",
    "https://evil.example",
    "javascript:alert(1)",
    "@evil.example",
    "evil",
    "",
    "/ x",
    "/\tx",
    "/\r\nset-cookie: a=b",
    "/\u00e4",
    "/" + "x" * 3000,
    "/login",
    "/login?then=/x",
    "/login/callback?code=x",
    "/logout",
    "/logged-out",
]


def test_nobody_is_sent_elsewhere(place: Place) -> None:
    assert {then_of(said) for said in EVIL} == {"/"}
    for said in EVIL[:5]:
        ann = place.person()
        assert ann.follow(f"/login?{httpx.QueryParams(then=said)}").status_code == 200
        assert ann.seen[-1] == f"{PAGE}/"


def test_a_foreign_host_is_not_sent_anywhere(place: Place) -> None:
    assert place.person().ask("/", host="evil.example").status_code == 421
    answer = place.person().ask("/", host="127.0.0.1")
    assert answer.headers["location"] == f"{PAGE}/login?then=%2F"


def test_nothing_secret_is_in_an_address_a_log_or_a_page(place: Place) -> None:
    ann = place.person()
    back = ann.code("/units/prod/none")
    attempt = next(value for name, value in ann.cookies.items() if name.startswith(ATTEMPT))
    answer = ann.follow(back)
    for secret in (SECRET, attempt, ann.cookies[COOKIE], asked_of(back)["code"]):
        assert secret not in answer.text + place.log
        assert all(secret not in address for address in ann.seen if address != back)
    assert answer.headers["referrer-policy"] == "no-referrer"
    ann.follow("/login/callback?code=c0de-of-nobody&state=st4te-of-nobody")
    assert "of-nobody" not in place.log


def test_a_browser_keeps_few_logins_that_it_began(place: Place) -> None:
    ann = place.person()
    backs = [ann.code() for _ in range(ATTEMPTS + 4)]
    assert len(ann.cookies) == ATTEMPTS
    assert ann.follow(backs[-2]).status_code == 200  # two tabs
    assert ann.follow(backs[0]).status_code == 400


def test_one_address_begins_so_many_logins(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    oidc = issuer.login(address=PAGE)
    with open_place(tmp_path, issuer, monkeypatch, Rate(1e-6, 3), oidc=oidc) as place:
        answers = [place.person().ask("/login") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [302, 302, 302, 429, 429]
        assert answers[-1].headers["retry-after"]
        assert place.person().ask("/static/page.css").status_code == 200


# --- an issuer that turns its keys, or is away ---------------------------------------------------------------------


def test_keys_that_turned_are_fetched_and_the_old_ones_do_not_count(place: Place) -> None:
    assert place.person().follow("/").status_code == 200
    old = place.issuer.keys["one"]
    place.issuer.keys = {"two": OTHER}
    place.issuer.made = lambda claims: place.issuer.token("two", now=AT, **claims)
    place.clock.time += keys.REFETCH + 1
    assert place.person().follow("/").status_code == 200
    place.issuer.made = lambda claims: place.issuer.token("one", old, AT, **claims)
    assert place.person().follow("/").status_code == 400
    place.issuer.keys = {"one": old}


def test_sessions_go_on_while_the_issuer_is_away_and_new_logins_are_told(place: Place) -> None:
    ann, back = place.person(), place.person()
    ann.follow("/")
    begun = back.code()
    place.issuer.away = True
    assert back.follow(begun).status_code == 503  # it went in the middle of a login
    place.clock.time += provider.FRESH + 1
    assert ann.ask("/").status_code == 200
    answer = place.person().follow("/")
    assert answer.status_code == 503
    assert "Nobody can log in now" in answer.text
    assert answer.headers["retry-after"] == "30"
    place.issuer.away = False
    assert place.person().follow("/").status_code == 503  # it is asked again after a while only
    place.clock.time += provider.REFETCH + 1
    assert place.person().follow("/").status_code == 200
    assert ann.ask("/").status_code == 200


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"issuer": "https://evil.example"}, "another issuer's"),
        ({"authorization_endpoint": "https://evil.example/authorize"}, "authorization_endpoint"),
        ({"authorization_endpoint": "http://127.0.0.1/authorize"}, "authorization_endpoint"),
        ({"token_endpoint": "https://evil.example/token"}, "token_endpoint"),
        ({"token_endpoint": None}, "no token_endpoint"),
    ],
)
def test_an_issuer_that_leads_elsewhere_is_not_followed(place: Place, described: dict[str, Any], told: str) -> None:
    place.issuer.described = described
    assert place.person().follow("/").status_code == 503
    assert told in place.log


def test_a_secret_that_is_not_there_is_told_in_the_log_and_the_next_one_is_read(place: Place, issuer: Issuer) -> None:
    file = issuer.ca_file.with_name("client-secret")
    for text in (None, "", "wrong"):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        assert place.person().follow("/").status_code == 503
    assert "put the client&#39;s secret there" not in place.log
    assert place.log.count("client's secret") == 2
    assert "invalid_client" in place.log
    file.write_text(SECRET)
    assert place.person().follow("/").status_code == 200


def test_an_issuer_that_takes_the_secret_in_the_form_only(place: Place) -> None:
    place.issuer.described = {"token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"]}
    assert place.person().follow("/").status_code == 200


# --- programs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_tokens(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    entry = {name: value for name, value in issuer.config().items() if name != "scopes"}
    oidc = issuer.login(address=PAGE)
    with open_place(tmp_path, issuer, monkeypatch, oidc=oidc, tokens=[entry]) as one:
        yield one


def test_a_program_reads_with_a_token(with_tokens: Place) -> None:
    program = with_tokens.person()
    good = with_tokens.token()
    for path in ("/api/v1/status", "/metrics", "/readyz"):
        answer = program.ask(path, accept="*/*", authorization=f"Bearer {good}")
        assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    page = program.ask("/", authorization=f"bearer {good}")
    assert SUBJECT in page.text
    assert "/logout" not in page.text
    assert program.ask("/api/v1/status", accept="*/*").headers["www-authenticate"] == "Bearer"


def test_the_command_line_shows_a_token(with_tokens: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = f"http://{with_tokens.at[0]}:{with_tokens.at[1]}"
    refused = CliRunner().invoke(cli, ["status", "--server", server])
    assert (refused.exit_code, "is not known who asks" in str(refused.exception)) == (1, True)
    file = tmp_path / "token"
    file.write_text(with_tokens.token() + "\n")
    monkeypatch.setenv("RECONCILER_TOKEN_FILE", str(file))
    assert CliRunner().invoke(cli, ["status", "--server", server]).exit_code == 0
    readable = CliRunner().invoke(cli, ["status", "--server", "http://reconciler.example.com"])
    assert "use https://" in str(readable.exception)
    monkeypatch.setenv("RECONCILER_CA_FILE", str(file))
    unfit = CliRunner().invoke(cli, ["status", "--server", server])
    assert "RECONCILER_CA_FILE" in str(unfit.exception)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: f"Bearer {p.token(aud=CLIENT, nonce='n')}", 401),  # what logs a person in
        (lambda p: f"Bearer {p.token(exp=int(AT) - 60)}", 401),
        (lambda p: f"Bearer {forged({'alg': 'none', 'kid': 'one'}, p.issuer.claims(AT))}", 401),
        (lambda p: f"Bearer {p.token(sub='repo:acme/other:ref:refs/heads/main')}", 403),
        (lambda _: f"Basic {base64.b64encode(b'ann:secret').decode()}", 401),
        (lambda _: "Bearer", 401),
    ],
)
def test_a_token_of_nobody_counts_for_nothing_not_even_with_a_session(
    with_tokens: Place, make: Callable[[Place], str], code: int
) -> None:
    ann = with_tokens.person()
    ann.follow("/")
    said = make(with_tokens)
    answer = ann.ask("/api/v1/status", authorization=said)
    assert answer.status_code == code
    assert said.split()[-1] == "Bearer" or said.split()[-1] not in answer.text + with_tokens.log
    assert ann.ask("/api/v1/status").status_code == 200


def test_one_address_shows_so_many_tokens(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.web.known.RATE", Rate(1e-6, 2))
    entry = {name: value for name, value in issuer.config().items() if name != "scopes"}
    with open_place(tmp_path, issuer, monkeypatch, tokens=[entry]) as place:
        said = {"host": "127.0.0.1", "authorization": "Bearer x"}
        assert [place.person().ask("/", **said).status_code for _ in range(3)] == [401, 401, 429]
        assert place.counted("limited") == 1


def test_programs_alone(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {name: value for name, value in issuer.config().items() if name != "scopes"}
    with open_place(tmp_path, issuer, monkeypatch, tokens=[entry]) as place:
        asking = {"host": "127.0.0.1"}
        assert place.person().ask("/", **asking).status_code == 401
        assert place.person().ask("/login", **asking).status_code == 401
        assert place.person().ask("/logout", "POST", **asking).status_code == 405
        issuer.away = True
        answer = place.person().ask("/", authorization=f"Bearer {place.token()}", **asking)
        assert answer.status_code == 503


# --- sessions ------------------------------------------------------------------------------------------------------


def test_of_one_persons_sessions_the_oldest_ends() -> None:
    clock = Seconds()
    sessions = Sessions(timedelta(minutes=5), clock)
    other = sessions.begin("bo", "u-2")
    names = [sessions.begin("ann", "u-1") for _ in range(EACH + 2)]
    assert [sessions.find(name) is not None for name in names] == [False, False] + [True] * EACH
    assert sessions.find(other) is not None
    assert not any(name in repr(vars(sessions)) for name in names)
    clock.time += 301
    assert sessions.find(other) is None
    sessions.begin("ann", "u-1")
    assert len(sessions) == 1


# --- configuration -------------------------------------------------------------------------------------------------

TLS = {"cert_file": "a", "key_file": "b"}
OIDC = {"issuer": "https://id.example", "client_id": "c", "client_secret_file": "s", "address": PAGE, "users": ["a"]}
TOKEN = {"issuer": "https://id.example", "audience": "c", "subjects": ["a"]}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"listen": "0.0.0.0:8080", "oidc": OIDC}, "sessions could be read; add tls"),
        ({"listen": "0.0.0.0:8080", "tokens": [TOKEN]}, "add tls"),
        ({"oidc": OIDC, "proxy": {"addresses": ["10.0.0.7"]}}, "write one or the other"),
        ({"oidc": OIDC, "tokens": [TOKEN]}, "would count as a program's"),
        ({"oidc": {**OIDC, "users": []}}, "everybody whom the issuer knows could look"),
        ({"oidc": {**OIDC, "issuer": "http://id.example"}}, "https:// address"),
        ({"oidc": {**OIDC, "address": "http://reconciler.example.com"}}, "no address of the page"),
        ({"oidc": {**OIDC, "address": f"{PAGE}/status"}}, "no address of the page"),
        ({"oidc": {**OIDC, "session": "25h"}}, "from 5m to 24h"),
        ({"oidc": {**OIDC, "session": "1m"}}, "from 5m to 24h"),
        ({"oidc": {**OIDC, "ask_for": ["a b"]}}, "ask_for"),
    ],
)
def test_a_login_that_would_not_hold_is_refused_at_start(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Http.model_validate(config, context={"folder": Path()})
    assert says in str(caught.value)


def test_elsewhere_with_tls_and_a_login_is_taken() -> None:
    config = Http.model_validate(
        {"listen": "10.0.0.1:8443", "tls": TLS, "oidc": {**OIDC, "address": f"{PAGE}/"}}, context={"folder": Path()}
    )
    assert config.oidc is not None
    assert (config.oidc.address, config.oidc.host) == (PAGE, "reconciler.example.com")
