"""Opens the store that the host's configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.config import ControllerConfig
from reconciler.config.controller import DynamoDb
from reconciler.ports import ALL, Chosen, Clock, HistoryEvent, Lease, Store
from reconciler.store.dynamodb.aws import AwsTable, open_client
from reconciler.store.dynamodb.store import DynamoStore
from reconciler.store.sqlite import SqliteStore


class Kept(Store, Lease, Protocol):
    """A store as the daemon has it: what is decided by, the right to decide, and the journal as people read it."""

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""

    def since(self, number: int, limit: int) -> Sequence[HistoryEvent]:
        """The events after the one of that number, oldest first."""

    def verify(self) -> int:
        """Recompute the hash chain over the whole journal and return the number of records. Raises PassError "AuditBroken"."""

    def close(self) -> None:
        """Let go of the lease and of the store. Whatever `append` returned from is in it."""


def open_store(config: ControllerConfig, clock: Clock) -> Kept:
    """The store, not led yet: nothing is read until `acquire`.

    Raises:
        PassError: it cannot be opened.
    """
    if config.store.dynamodb is not None:
        return open_table(config.store.dynamodb, clock, config.lease_seconds)
    return SqliteStore(config.store_path, clock, ttl=config.lease_seconds, lead=False)


def open_table(said: DynamoDb, clock: Clock, ttl: float) -> DynamoStore:
    """The store in a table, not led yet."""
    client = open_client(said.region, said.endpoint)
    return DynamoStore(
        AwsTable(client, said.table, said.place), said.place, clock, ttl=ttl, lead=False, close=client.close
    )
