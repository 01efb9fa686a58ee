"""Strings that have broken pages elsewhere: markup, handlers, templates, addresses, directions, and what ends other things."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

from reconciler.actual.ledger import Frozen, HeadAccepted, HoldChanged, JobDispatched, JobEnded, Paused, PullShown
from reconciler.errors import Place
from reconciler.forge.facts import Pull
from reconciler.git.proofs import Proof
from reconciler.model import Commit, Hold, JobId, Outcome, Pause, Problem, Stray, UnitId
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.trust import Seen, Unproven
from reconciler.web.view import Check
from tests.kit.sample import HEAD, NOW, desired, dispatched, plan, result, unit
from tests.kit.served import Installation

NAUGHTY = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1' autofocus onfocus='window.pwned=1",
    "<svg onload=window.pwned=1><animate onbegin=window.pwned=1 attributeName=x></svg>",
    "</title></textarea></style></pre><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "javascript:window.pwned=1//",
    "data:text/html,<script>window.pwned=1</script>",
    "{{7*7}}{% raw %}${7*7}<%= 7*7 %>#{7*7}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "\u202eevil\u202c \u2066\u2067isolate\u2069 \u200bzero\ufeff",
    "\x00\x07\x1b]0;title\x07\x1b[31mred",
    "<!-- --!><![CDATA[<script>window.pwned=1</script>]]>",
    "&lt;script&gt;&#x3c;script&#x3e;window.pwned=1",
    "`code` `<b>` ``` `</code><script>window.pwned=1</script>`",
    "🏳️‍🌈👩‍👩‍👧 ﷽ Ｔｅｓｔ ẗ̸̢͔e̷̘̐x̶̙̄t",
    "../../../etc/passwd%00?x=1&y=2#z;a=b",
    "a" * 3000,
    "<a href='javascript:window.pwned=1' target=_blank>click</a><form action='//evil.example'><input type=submit>",
    "<base href='//evil.example/'><meta http-equiv=refresh content='0;url=//evil.example'><link rel=stylesheet href=//evil.example>",
)


def spoil(installation: Installation, text: str) -> None:
    """Put the text wherever somebody, or some module, may write."""
    name = UnitId(f"prod/{text}")
    odd = unit("prod/odd")
    entry = replace(odd.entry, unit=name, place=Place(text, 1, 1), inputs={text: 1})
    pin = replace(odd.pin, module=text, version=text, ref=text, commit=Commit(text), yanked=text)
    bad = Problem(Place(text, 1, 1), text, text, unit=UnitId(f"stage/{text}"))
    meant = desired(replace(odd, id=name, entry=entry, pin=pin), unit("prod/app"))
    installation.desired = replace(
        meant, broken={UnitId(f"stage/{text}"): bad}, problems=(bad, Problem(Place(text), text, text))
    )
    installation.proofs[HEAD] = Proof(HEAD, NOW, text, text, 1, text, (text,))
    installation.ready["git"] = Check(False, text)
    installation.seen = Seen(NOW, Unproven(Commit(text), text, text, HEAD))
    asked = dispatched(name, job="j7")
    changes = plan((text, (text,)), (text, ("create",)))
    good = result(asked).applied
    assert good is not None
    spoilt = replace(good, module=text, version=text)
    ended = replace(result(asked, Outcome.FAILED, changes), reason=text, message=text, applied=spoilt)
    ended = replace(ended, strays=(Stray(text, text, text, text, text, text),))
    installation.store.append(HeadAccepted(HEAD), Frozen(Hold(text, text), NOW), JobDispatched(asked))
    installation.store.append(
        JobEnded(asked, ended, NOW + timedelta(minutes=1), NOW), HoldChanged(name, Hold(text, text))
    )
    installation.store.append(Paused(Pause("prod/app", text, text, NOW, NOW + timedelta(hours=1))), actor=text)
    installation.store.append(PullShown(1, HEAD, text, name, JobId("p7"), Outcome.FAILED, text, text, changes))
    pull = Pull(1, HEAD, text, text, writes=True, title=text)
    installation.open = (
        PullStatus(pull, HEAD, text, text, (UnitShown(name, text, text, text, changes, JobId("p7"), NOW),)),
    )
    (installation.logs / "j7").write_text(text)


PATHS = ["/", "/?q={}", "/?environment={}&sort={}", "/units/prod/{}", "/units/stage/{}", "/units/{}", "/stopped", "/journal",
         "/journal?scope={}&actor={}&action={}", "/pulls", "/jobs/j7?unit=prod/{}", "/jobs/p7?unit=prod/{}", "/jobs/{}", "/{}"]  # fmt: skip


def addresses(text: str) -> list[str]:
    """Every page, with the text wherever an address may have it."""
    return [path.replace("{}", quote(text, safe="")) for path in PATHS]
