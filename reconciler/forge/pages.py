"""Where people look at a pull request: the forge's page of it, beside its API."""

from __future__ import annotations

from urllib.parse import quote

from reconciler.config.fields import Forge

_PULL = {"github": "pull", "gitlab": "-/merge_requests", "gitea": "pulls"}
_GITHUBS_API = {"https://api.github.com": "https://github.com"}


def home(forge: Forge) -> str:
    """The repository's page."""
    address = _GITHUBS_API.get(forge.address, forge.address)
    if forge.kind == "github":
        address = address.removesuffix("/api/v3")
    return f"{address}/{quote(forge.repository)}"


def pull_page(forge: Forge, number: int) -> str:
    """The pull request's page."""
    return f"{home(forge)}/{_PULL[forge.kind]}/{number}"


def opening_page(forge: Forge, branch: str, base: str) -> str:
    """Where a pull request of a branch that was pushed is opened."""
    new, old = quote(branch, safe=""), quote(base, safe="")
    if forge.kind == "gitlab":
        asked = f"merge_request%5Bsource_branch%5D={new}&merge_request%5Btarget_branch%5D={old}"
        return f"{home(forge)}/-/merge_requests/new?{asked}"
    return f"{home(forge)}/compare/{old}...{new}" + ("?expand=1" if forge.kind == "github" else "")
