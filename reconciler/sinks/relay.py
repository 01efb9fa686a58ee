"""Apprise: a sentence for people, in a mail, a chat or on a pager. Needs the extra `apprise`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from reconciler.config.notify import Apprise
from reconciler.errors import ConfigError
from reconciler.sinks.events import PREFIX
from reconciler.sinks.sender import DEADLINE, FailedError

# How it is marked where the receiver has marks; whatever is not here is for information.
KINDS: Mapping[str, str] = {
    "unit.applied": "success",
    "unit.drifted": "warning",
    "unit.failed": "failure",
    "unit.held": "warning",
    "unit.uncertain": "failure",
    "branch.frozen": "failure",
    "branch.rewritten": "warning",
    "branch.thawed": "success",
    "scope.paused": "warning",
}
LONGEST = 2000  # characters of a text; chats take no more


class Relay:
    """Hands events to one address, which is read anew for each."""

    def __init__(self, name: str, apprise: Apprise) -> None:
        """Raises ConfigError: Apprise is not installed."""
        if find_spec("apprise") is None:
            raise ConfigError(
                f"notify: {name} needs Apprise, which is not installed: pip install 'gitops-reconciler[apprise]', or remove it"
            )
        self._file = apprise.url_file

    def send(self, event: Mapping[str, Any]) -> None:
        """Tell it. Raises FailedError."""
        import apprise

        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its own lines name addresses, which are secrets
        try:
            address = self._file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise FailedError(f"its url_file cannot be read ({type(error).__name__})") from error
        asset = apprise.AppriseAsset(
            app_id="reconciler", storage_mode=apprise.PersistentStoreMode.MEMORY, secure_logging=True
        )
        relay = apprise.Apprise(asset=asset)
        if len(address.split()) != 1 or not relay.add(f"{address}{'&' if '?' in address else '?'}cto=5&rto={DEADLINE}"):
            raise FailedError("its url_file holds no address that Apprise knows; write one, alone on one line")
        title, body, kind = said(event)
        try:
            taken = relay.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
        except TypeError as error:  # what Apprise raises for what it cannot send
            raise FailedError("Apprise cannot send it") from error
        if not taken:
            raise FailedError("Apprise could not hand it over")

    def close(self) -> None:
        """There is nothing to let go of."""


def said(event: Mapping[str, Any]) -> tuple[str, str, str]:
    """Title, text, and the kind that Apprise calls it by."""
    kind = str(event["type"]).removeprefix(PREFIX)
    data = dict(event["data"])
    first = ": ".join(str(data.pop(name)) for name in ("reason", "message") if name in data)
    more = [f"{name}: {value}" for name, value in data.items()]
    text = "\n".join(filter(None, (first, *more, f"at: {event['time']}")))
    title = f"{kind} {event['subject']}" if "subject" in event else kind
    return title, text[:LONGEST], KINDS.get(kind, "info")
