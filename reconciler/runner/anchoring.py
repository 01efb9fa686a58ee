"""Keeping the anchor up to date: a process of its own beside the service, which itself waits for no network.

What is known of the anchor is in `anchored.json` beside the log: the newest head that it has, and why it has no newer one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from reconciler.config.audit import AnchorConfig, Audit, S3AnchorConfig
from reconciler.errors import PassError, ReconcilerError
from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.policy import for_anchor
from reconciler.runner.access.sources import Asked, signing
from reconciler.runner.audit.anchor import Anchor, FileAnchor, disagrees
from reconciler.runner.audit.chain import Head
from reconciler.runner.audit.s3 import S3Anchor, folder_of
from reconciler.runner.record import ANCHORED, Anchored, Recorder

PURPOSE = "audit"  # what sessions of its roles say that they are for
MANY = 100  # records that wait for no interval
LOOK = 1.0  # seconds between looks at the log
AGAIN = 15.0  # seconds until the next try, after one that failed
AT_THE_END = 15.0  # seconds that a service which ends waits for the last head to be anchored


def open_anchor(config: AnchorConfig, installation: str) -> Anchor:
    """The anchor that the configuration means.

    Raises:
        HeldError: its credentials cannot be read. UnitError: they are not there now.
    """
    if config.file is not None:
        return FileAnchor(config.file)
    s3 = config.s3
    assert s3 is not None  # noqa: S101 - the configuration has exactly one of them
    keys = _keys(s3, installation) if s3.credentials else None
    return S3Anchor(s3.bucket, s3.prefix, s3.region, s3.retain, s3.mode, s3.endpoint, s3.use_path_style, keys)


def _keys(s3: S3AnchorConfig, installation: str) -> Renewing:
    """Keys that stay good for as long as the keeper lives. A session of a role may only add heads."""
    assert s3.credentials is not None  # noqa: S101 - only asked for then
    asked = Asked("runner.yaml: audit.anchor.s3.credentials", PURPOSE, installation, region=s3.region)
    return signing(s3.credentials, asked, lambda partition: for_anchor(s3.bucket, folder_of(s3.prefix), partition))


class Keeper:
    """Puts the log's newest head into the anchor, and notes how that went.

    The anchor stays open until it fails: then its credentials may be others by now, and it is opened anew.
    """

    def __init__(
        self, audit: Audit, recorder: Recorder, installation: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._audit, self._recorder, self._installation, self._clock = audit, recorder, installation, clock
        self._anchor: Anchor | None = None
        self._tried = -max(audit.interval.total_seconds(), AGAIN)

    def tend(self, *, now_or_never: bool = False) -> None:
        """Put the head, if one waits and its time has come. What goes wrong is noted, and tried again."""
        try:
            known, head = self._recorder.anchored(), self._recorder.log.mark().head
            waiting = head.count - known.head.count
            since = self._clock() - self._tried
            pause = AGAIN if known.failure else self._audit.interval.total_seconds()
            many = waiting >= MANY and not known.failure
            if (waiting or head != known.head) and (many or now_or_never or since >= pause):
                self._tried = self._clock()
                self._check_own(known.head, head)
                self._opened().put(head, datetime.now(UTC))
                self._recorder.note_anchored(Anchored(head))
        except (ReconcilerError, OSError) as error:
            self._anchor = None
            self._failed(str(error))

    def _opened(self) -> Anchor:
        if self._anchor is None:
            self._anchor = open_anchor(self._audit.anchor, self._installation)
        return self._anchor

    def _check_own(self, known: Head, head: Head) -> None:
        """What was anchored before is still there. Whether its hash is the same, the anchor says."""
        if known.count > head.count or (known.count == head.count and known != head):
            what = (
                f"it says that record {known.count} was anchored, which this log of {head.count} records does not have"
            )
            raise disagrees(f"{self._recorder.cabinet.place}/{ANCHORED}", what)

    def _failed(self, why: str) -> None:
        with suppress(PassError, OSError):
            known = self._recorder.anchored()
            if known.failure != why:
                self._recorder.note_anchored(Anchored(known.head, why))
                sys.stderr.write(f"runner: {why}\n")
                sys.stderr.flush()


class Anchoring:
    """The service's side: starts the keeper's process, again should it die, and lets it come to its end."""

    def __init__(self, audit: Audit | None, recorder: Recorder, installation: str) -> None:
        self._audit, self._recorder, self._installation = audit, recorder, installation
        self._child: int | None = None
        self._leash: socket.socket | None = None

    def start(self, let_go: Callable[[], None], delay: float = 0.0) -> None:
        """Begin, where an anchor is configured. `let_go` is called in the new process: it keeps nothing of the service's."""
        if self._audit is None:
            return
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _become(Keeper(self._audit, self._recorder, self._installation), theirs, let_go, delay)
        theirs.close()
        self._child, self._leash = pid, ours

    def reap(self, let_go: Callable[[], None]) -> None:
        """Start it again if it has died."""
        if self._child is not None and os.waitpid(self._child, os.WNOHANG)[0] == self._child:
            self._child = None
            self.let_go()
            self.start(let_go, AGAIN)

    def let_go(self) -> None:
        """Close what holds the keeper: in a process that is not the service, or at its end."""
        if self._leash is not None:
            self._leash.close()
            self._leash = None

    def finish(self) -> None:
        """Let the last head be anchored, and end."""
        self.let_go()
        deadline = time.monotonic() + AT_THE_END
        while self._child is not None and time.monotonic() < deadline:
            if os.waitpid(self._child, os.WNOHANG)[0] == self._child:
                self._child = None
            else:
                time.sleep(0.02)
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)


def _become(keeper: Keeper, leash: socket.socket, let_go: Callable[[], None], delay: float) -> None:
    """Be the keeper's process: never returns. The leash ends with the service, however that ends."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        let_go()
        patience = delay
        while not select.select([leash], [], [], patience)[0]:
            keeper.tend()
            patience = LOOK
        keeper.tend(now_or_never=True)
    except BaseException:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
