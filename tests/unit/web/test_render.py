from __future__ import annotations

from datetime import timedelta

import pytest
from jinja2 import UndefinedError

from reconciler.web.render import ago, asking, job_path, page, plain, rough, span, ticked, unit_path
from tests.kit.sample import NOW


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (-3, "0 ms"), (0.35, "350 ms"), (4.21, "4.2 s"), (59.9, "60 s"), (60, "1 min"), (185, "3 min 5 s"),
     (7200, "2 h"), (273_600, "3 d 4 h"), (timedelta(minutes=90), "1 h 30 min")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_ages_look_back_and_ahead() -> None:
    assert ">2 h ago</time>" in ago(NOW - timedelta(hours=2), NOW)
    assert ">in 3 d</time>" in ago(NOW + timedelta(days=3, hours=1), NOW)
    assert ago(None, NOW) == ""
    assert rough(59) == "59 s"


def test_nothing_of_a_text_steers_how_others_are_shown() -> None:
    assert plain("a\u202eb\x1b[1m\tc\nd") == "a\ufffdb\ufffd[1m\tc\nd"
    assert plain(None) == ""
    assert plain(3) == "3"


def test_what_stands_in_backticks_is_code_and_still_escaped() -> None:
    assert ticked("run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
    assert ticked("`") == "<code></code>"


def test_addresses_are_quoted() -> None:
    assert unit_path('prod/a"b?c') == "/units/prod/a%22b%3Fc"
    assert job_path("a/b", "p/u&v") == "/jobs/a%2Fb?unit=p%2Fu%26v"
    assert asking("/", q="a b&c", page=2, down=False, sort="") == "/?q=a+b%26c&page=2"


def test_a_page_that_lacks_a_fact_is_a_bug_and_no_gap() -> None:
    with pytest.raises(UndefinedError):
        page("refused", code=404)
