"""What hides secrets knows how engines, providers and people write them down, and where lines are cut."""

from __future__ import annotations

import base64
import html
import json
import textwrap
from urllib.parse import quote, quote_plus

import pytest

from reconciler.runner.terraform.masking import HIDDEN, Veil, mask

SECRET = 'Tr0ub4dor <&> "3" it\'s a 100% long ${phrase} that no engine prints in one line'
KEY = "-----BEGIN KEY-----\nMIIE vQ\nIBADAN\nBgkqhk\n-----END KEY-----"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(json.dumps(SECRET)),
        json.dumps({"password": SECRET}).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        json.dumps(SECRET.replace("${", "$${")),
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        html.escape(html.escape(SECRET)),
        html.escape(SECRET).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        html.escape(json.dumps(json.dumps(SECRET))),
        repr(SECRET),
        repr(json.dumps({"password": SECRET})),
        quote(SECRET),
        quote_plus(SECRET),
        quote(quote(SECRET, safe="")),
        quote(json.dumps(SECRET)),
        quote(base64.b64encode(SECRET.encode())),
        SECRET.encode().hex(),
        base64.encodebytes(SECRET.encode()).decode(),
        *(base64.b64encode(f"{'u' * n}:{SECRET}".encode()).decode() for n in range(3)),
        *(base64.urlsafe_b64encode(f"{'u' * n}:{SECRET}@host".encode()).decode() for n in range(3)),
        "\n".join(f"\u2502 {line}" for line in textwrap.wrap(SECRET, 30, break_on_hyphens=False)),
        " ".join(SECRET.split()),
    ],
)
def test_no_form_shows_any_stretch_of_the_secret(form: str) -> None:
    hidden = mask(f"error: {form} was refused", frozenset({SECRET}))
    assert HIDDEN in hidden
    assert not any(form[at : at + 10] in hidden for at in range(16, len(form) - 26))


def test_a_key_of_short_lines_is_found_as_a_whole_however_it_is_indented() -> None:
    for shown in (KEY, textwrap.indent(KEY, "  "), " ".join(KEY.split()), KEY.replace("\n", "\r\n")):
        assert mask(f"a\n{shown}\nb", frozenset({f"{KEY}\n"})).split() == ["a", HIDDEN, "b"]


def test_among_a_thousand_the_longest_that_stands_there_is_hidden() -> None:
    secrets = frozenset(f"same-start-{number}" for number in range(1000)) | {"same", "xsame-start"}
    assert mask("same-start-999 same-start-99x same xsame-start-5", secrets) == (
        f"{HIDDEN} {HIDDEN}x {HIDDEN} {HIDDEN}-5"
    )


def test_our_own_sentences_keep_short_words_and_no_key_of_an_address() -> None:
    veil = Veil({"prod", "a-long-secret"})
    veil.learn(["hunter22"])
    said = 'environments/prod/a.yaml: it destroys module.unit.prod["prod"], b["x"] and c["a-long-secret"]: hunter22'
    assert veil.hide_in_ours(said) == (
        f'environments/prod/a.yaml: it destroys module.unit.prod["{HIDDEN}"], b["x"] and c["{HIDDEN}"]: {HIDDEN}'
    )
    assert veil.hide_in_address('prod.prod["a \\" prod"]') == f'prod.prod["a \\" {HIDDEN}"]'
    assert veil.hide("prod") == HIDDEN
