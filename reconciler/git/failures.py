"""What git wrote to stderr -> a reason from the published list, and what to do next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reconciler.errors import PassError


@dataclass(frozen=True, slots=True)
class _Kind:
    """One way to fail: how git words it (in the C locale), its reason, and the sentence's end."""

    pattern: re.Pattern[str]
    reason: str
    remedy: str


def _kind(pattern: str, reason: str, remedy: str) -> _Kind:
    return _Kind(re.compile(pattern, re.IGNORECASE), reason, remedy)


# The first match wins: the particular before the general.
_KINDS = (
    _kind(
        r"host key verification failed|host identification has changed|host key is known",
        "HostKeyInvalid",
        "the host key is not the expected one: compare it with the server's published key; if it is genuine, "
        "add it to known_hosts on this host",
    ),
    _kind(
        r"certificate problem|certificate verification failed|ssl certificate|error setting certificate|"
        r"certificate verify|certificate subject|alternative certificate|SSL CA cert|SSL_ERROR|SSL routines|gnutls_handshake",
        "TlsInvalid",
        "the server's certificate is not trusted: check the address, and ca_file if the server has a private authority",
    ),
    _kind(
        r"requested URL returned error: 30\d|update url base from redirection",
        "RedirectRefused",
        "the server answers with a redirect, which is never followed: configure the final address",
    ),
    _kind(
        r"permission denied \(|authentication failed|could not read (username|password)|too many authentication|"
        r"requested URL returned error: 40[13]|prompts disabled",
        "AuthFailed",
        "the server refuses the credentials: check ssh_key or token_file, and that they may read the repository",
    ),
    _kind(
        r"couldn't find remote ref",
        "BranchMissing",
        "the branch does not exist on the server: check `branch` in the configuration, or restore the branch",
    ),
    _kind(
        r"\(non-fast-forward\)",
        "HistoryRewritten",
        "the branch no longer contains what was fetched before: find out who rewrote it, and put the branch back",
    ),
    _kind(
        r"shallow roots are not allowed",
        "ServerShallow",
        "the server's copy of the repository is shallow, so its history cannot be followed: unshallow it, or name another server",
    ),
    _kind(
        r"would clobber existing tag",
        "TagMoved",
        "a tag stands for another commit than before: find out who moved it; pins are not affected",
    ),
    _kind(
        r"transport '[^']*' not allowed",
        "ProtocolRefused",
        "only https and ssh are allowed, file only where the configuration says so: change the address",
    ),
    _kind(
        r"object [0-9a-f]{40}: \w+: |fsck error|pack has bad object|object .*fsck|: (bad|has|missing|contains)\w+: ",
        "ObjectRefused",
        "the server sent an object that git's own check refuses: find the commit that brought it (`git fsck`)",
    ),
    _kind(
        r"out of memory", "OutOfMemory", "git takes more memory than it may: look for what grew, or give this host more"
    ),
    _kind(r"no space left on device|disk quota", "DiskFull", "make room on the file system of the mirror"),
    _kind(
        r"unable to create '.*\.lock': file exists|another git process",
        "MirrorLocked",
        "another git process works in the mirror: end it, or remove its lock file",
    ),
    _kind(
        r"operation too slow|timed? ?out",
        "GitTimeout",
        "the server answers too slowly: check it and the network; the next poll tries again",
    ),
    _kind(
        r"could not resolve|failed to connect|connection refused|connection (was )?(reset|closed)|no route|"
        r"network is unreachable|could not read from remote|does not appear to be a git repository|"
        r"dubious ownership|unable to access|hung up|early eof|invalid index-pack|"
        r"repository .* not (found|exist)|rpc failed|unexpected disconnect|bad line length|protocol error",
        "GitUnreachable",
        "check the address, the server and the network; the last good commit stays in force and the next poll "
        "tries again",
    ),
)

_UNKNOWN = _kind("", "GitFailed", "run the same command by hand in the mirror folder to see more")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_SAID_CHARACTERS = 300


def failure(where: str, stderr: bytes) -> PassError:
    """The error that a failed command means. `where` names the repository.

    What the server wrote through its side band (`remote: ...`) may be anything and never decides.
    """
    lines = [_UNPRINTABLE.sub(" ", line).strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    own = [line for line in lines if line and not line.startswith("remote:")]
    text = "\n".join(own)
    kind = next((kind for kind in _KINDS if kind.pattern.search(text)), _UNKNOWN)
    telling = next((line for line in own if kind.pattern.search(line)), "nothing")[:_SAID_CHARACTERS]
    return PassError(kind.reason, f"{where}: {kind.remedy} (git said: {telling})")


def timeout(where: str, seconds: float) -> PassError:
    """The error of a command that its deadline ended."""
    return PassError(
        "GitTimeout",
        f"{where}: git did not finish within {seconds:g} s and was ended: check the server and the network; "
        "the last good commit stays in force and the next poll tries again",
    )
