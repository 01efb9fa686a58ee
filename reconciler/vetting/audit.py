"""From a module's folder over everything that it reaches to what it must not have. Pure over bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from reconciler.vetting import blocks, names
from reconciler.vetting.blocks import Called, Required
from reconciler.vetting.bodies import Block, parse
from reconciler.vetting.facts import (
    FINDINGS,
    FOLDERS,
    INSTANCES,
    TOKENS,
    TOTAL_BYTES,
    Files,
    Finding,
    Refused,
)
from reconciler.vetting.functions import BUILTIN, Followed, Used, look
from reconciler.vetting.jsonfile import parse_json
from reconciler.vetting.source import Source
from reconciler.vetting.tokens import Token, scan


def vet(files: Files, path: str, providers: frozenset[str] | None = None) -> tuple[Finding, ...]:
    """Everything that the module in the folder `path` of the tree must not have, by file and line.

    `providers` are the sources that it may use (`hashicorp/aws`); None where nobody says. Never raises for what the
    files hold, and takes less than a second.
    """
    found = [*islice(_Audit(files, providers).run(path.strip("/").removeprefix(".")), FINDINGS + 1)]
    if len(found) > FINDINGS:
        found[FINDINGS:] = [Finding("too-large", path, 0, 0, f"more than {FINDINGS} findings: mend these first")]
    return tuple(sorted(set(found), key=lambda one: (one.path, one.line, one.column, one.rule, one.message)))


class _Folder:
    """What one module's folder was found to need."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls: list[str] = []
        self.required: list[tuple[Source, Required]] = []
        self.used: list[tuple[Source, Used]] = []


class _Audit:
    """One walk, and what it may still read."""

    def __init__(self, files: Files, providers: frozenset[str] | None) -> None:
        self._files, self._providers = files, providers
        self._bytes, self._tokens = TOTAL_BYTES, TOKENS
        self._there: dict[str, list[str]] = defaultdict(list)
        for path in sorted(files):
            folder, _, name = path.rpartition("/")
            self._there[folder].append(name)
        self._folders: dict[str, _Folder] = {}
        self._templates: set[str] = set()

    def run(self, path: str) -> Iterator[Finding]:
        yield from names.odd_modes(self._files, sorted(self._files))
        waiting = [path]
        if not self._is_module(path):
            yield Finding("module-source", path, 0, 0, "there is no module in this folder: correct the path")
        while waiting:
            here = _Folder(waiting.pop())
            if here.path in self._folders:
                continue
            self._folders[here.path] = here
            if len(self._folders) > FOLDERS:
                yield Finding("too-large", here.path, 0, 0, f"more than {FOLDERS} modules in one: make it smaller")
                return
            yield from self._look_into(here)
            waiting += here.calls
        yield from self._circles(path)
        yield from self._below()

    def _is_module(self, folder: str) -> bool:
        return any(names.is_configuration(name) for name in self._there.get(folder, ()))

    def _look_into(self, here: _Folder) -> Iterator[Finding]:
        for name in self._there.get(here.path, ()):
            path = f"{here.path}/{name}".lstrip("/")
            yield from names.beside(path, name)
            if names.is_configuration(name):
                source = Source(path, self._files[path][1])
                try:
                    yield from self._look_at(here, source, self._parsed(source))
                except Refused as refused:
                    yield _finding(source, refused.rule, refused.at, str(refused))
        yield from self._strangers(here)

    # --- one file

    def _take(self, source: Source) -> None:
        """Raises Refused for a file that is odd, or one too many."""
        source.check()
        self._bytes -= len(source.text)
        if self._bytes < 0:
            raise Refused("too-large", 0, f"the module has more than {TOTAL_BYTES >> 20} MiB: make it smaller")

    def _scanned(self, text: str, *, template: bool = False) -> list[Token]:
        tokens = [*islice(scan(text, template=template), self._tokens + 1)]
        self._tokens -= len(tokens)
        if self._tokens < 0:
            raise Refused("too-large", tokens[-1].at, "the module has more than is read: make it smaller")
        return tokens

    def _parsed(self, source: Source) -> Block:
        self._take(source)
        if not source.path.endswith(".json"):
            return parse(self._scanned(source.text))
        block = parse_json(source.text, self._tokens)
        self._tokens -= sum(len(one.tokens) for one in block.everything())
        return block

    def _look_at(self, here: _Folder, source: Source, file: Block) -> Iterator[Finding]:
        for seen in blocks.look_at(file):
            if isinstance(seen, Called):
                yield from self._call(here, source, seen)
            elif isinstance(seen, Required):
                here.required.append((source, seen))
            elif isinstance(seen, Used):
                here.used.append((source, seen))
            else:
                yield _finding(source, *seen)
        for argument in file.everything():
            yield from self._expression(here, source, argument.tokens)

    def _expression(
        self, here: _Folder, source: Source, tokens: Sequence[Token], *, template: bool = False
    ) -> Iterator[Finding]:
        for seen in look(tokens, None if template else here.path):
            if isinstance(seen, Used):
                here.used.append((source, seen))
            elif isinstance(seen, Followed):
                yield from self._follow(here, source, seen)
            else:
                yield _finding(source, *seen)

    def _follow(self, here: _Folder, source: Source, followed: Followed) -> Iterator[Finding]:
        if followed.path not in self._files:
            what = f"{followed.path} is not in this repository: put the template there"
            yield _finding(source, "template", followed.at, what)
        elif followed.path not in self._templates:
            self._templates.add(followed.path)
            text = Source(followed.path, self._files[followed.path][1])
            try:
                self._take(text)
                yield from self._expression(here, text, self._scanned(text.text, template=True), template=True)
            except Refused as refused:
                yield _finding(text, refused.rule, refused.at, str(refused))

    def _call(self, here: _Folder, source: Source, called: Called) -> Iterator[Finding]:
        parts: list[str] = here.path.split("/") if here.path else []
        for part in called.source.split("/"):
            if part == ".." and not parts:
                yield _finding(source, "module-source", called.at, f"{called.source!r} leaves this repository")
                return
            if part == "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        folder = "/".join(parts)
        if self._is_module(folder):
            here.calls.append(folder)
        else:
            what = (
                f"{called.source!r}: there is no module in {folder or 'the top folder'} of this repository: correct it"
            )
            yield _finding(source, "module-source", called.at, what)

    # --- what only the whole shows

    def _strangers(self, here: _Folder) -> Iterator[Finding]:
        """Providers that nobody listed. Two engines may read different files, so every source that is written counts."""
        for source, required in here.required:
            yield from self._allowed(source, required.source, required.at)
        engines = {path.rpartition(".")[2] for path in self._suffixes(here)}
        for source, used in here.used:
            known = {one.source for _, one in here.required if one.name == used.name}
            if used.name != BUILTIN and (not known or len(engines) > 1):
                implied = blocks.normal(used.name)
                if implied is None:
                    yield _finding(source, "provider", used.at, f"{used.name!r} is no provider: correct it")
                else:
                    yield from self._allowed(source, implied, used.at)

    def _suffixes(self, here: _Folder) -> Iterator[str]:
        for name in self._there.get(here.path, ()):
            if names.is_configuration(name):
                yield name.removesuffix(".json")

    def _allowed(self, source: Source, provider: str, at: int) -> Iterator[Finding]:
        if self._providers is not None and provider not in self._providers:
            known = ", ".join(sorted(self._providers)) or "none"
            yield _finding(source, "provider", at, f"{provider} is not listed ({known}): take it out, or list it")

    def _circles(self, start: str) -> Iterator[Finding]:
        """Every call followed: no circle, and not more instances than engines bear. The graph has at most FOLDERS."""
        sizes: dict[str, int] = {}
        above: list[str] = []

        def size(path: str) -> int:
            if path in above:
                raise Refused(
                    "module-cycle", 0, f"{' -> '.join([*above[above.index(path) :], path])}: break the circle"
                )
            if path not in sizes:
                above.append(path)
                sizes[path] = 1 + sum(size(inner) for inner in self._folders[path].calls)
                above.pop()
            return sizes[path]

        try:
            if size(start) > INSTANCES:
                yield Finding(
                    "too-large", start, 0, 0, f"its calls make more than {INSTANCES} modules: make it flatter"
                )
        except Refused as refused:
            yield Finding(refused.rule, start, 0, 0, str(refused))

    def _below(self) -> Iterator[Finding]:
        """Every file below a folder of a module: a file function may read it."""
        for path in sorted(self._files):
            parts = path.split("/")
            above = ["/".join(parts[:count]) for count in range(len(parts))]
            inside = [folder for folder in above if folder in self._folders]
            for folder in inside:
                inner = path[len(folder) :].lstrip("/")
                yield from names.below(self._files, path, inner)


def _finding(source: Source, rule: str, at: int, message: str) -> Finding:
    line, column = source.place(at)
    return Finding(rule, source.path, line, column, message)
