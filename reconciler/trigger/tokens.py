"""Tokens of CI servers: whose they are, and what they may wake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

from reconciler.config.trigger import Oidc
from reconciler.oidc import tokens
from reconciler.oidc.keys import KeysUnknownError
from reconciler.trigger.callers import Caller, RefusedError, unproven


class Tokens:
    """Everybody whose tokens count."""

    def __init__(self, callers: Sequence[Oidc], now: Callable[[], datetime]) -> None:
        """Raises ConfigError: the keys or the authorities of an issuer cannot be read."""
        self._tokens = tokens.Tokens(callers, "trigger.oidc", now)

    def prove(self, token: str) -> Caller:
        """Whose token it is. Raises RefusedError."""
        try:
            found = self._tokens.prove(token)
        except tokens.UnprovenError as error:
            raise unproven(str(error)) from error
        except tokens.ForeignError as error:
            raise RefusedError(403, "forbidden", str(error), caller=error.subject) from error
        except KeysUnknownError as error:
            said = "the issuer's keys are not known now: try again; the controller's log says why"
            raise RefusedError(503, "unavailable", str(error), said) from error
        # A token without a name of its own is its own name; two of one issuer are told apart by it.
        name = f"{found.entry.issuer}\0{found.claims.get('jti') or token}"
        return Caller(found.subject, tuple(found.entry.scopes), hashlib.sha256(name.encode()).hexdigest(), found.until)
