"""The configured repository, as a forge knows it."""

from __future__ import annotations

from reconciler.errors import PassError
from reconciler.forge.rest import Answer, Id, Rest, Word


class Repository(Answer):
    id: Id
    full_name: Word


class Home:
    """`path` is where its API begins, as GitHub and those who follow it have it; `id` is 0 until it was met."""

    def __init__(self, rest: Rest, name: str) -> None:
        self._rest, self._name = rest, name
        self.path = ("repos", *name.split("/"))
        self.id = 0

    def meet(self) -> None:
        """Ask who it is. Raises PassError."""
        found = self._rest.one(Repository, *self.path)
        check_name(self._rest.place, self._name, found.full_name)
        self.id = found.id


def check_name(place: str, wanted: str, found: str) -> None:
    """Go on only where the forge calls the repository as the configuration does.

    Raises:
        PassError: "ForgeUnknown": it answers for another one; nothing is proven of this one.
    """
    if found.casefold() != wanted.casefold():
        raise PassError("ForgeUnknown", f"{place}: the forge calls it {found}: write that name into forge.repository.")
