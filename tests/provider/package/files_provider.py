"""The provider `reconciler/files`: real objects for the demo and the tests, which can drift, fail, hang and vanish.

Started by Terraform through the launcher beside this file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves it out

from objects import Cloud, Refused, wrong_path
from tf.schema import Attribute, Schema
from tf.types import Bool, Number, String, Unknown

if TYPE_CHECKING:
    State = dict[str, Any]

# Set once Terraform has been interrupted and asks its providers to come to an end.
stopping = threading.Event()


def attribute(name: str, kind: Any = String, **options: bool) -> Any:
    return Attribute(name, kind(), **options)


IDENTITY = [attribute("id", computed=True), attribute("path", required=True, requires_replace=True)]
CONTENT = attribute("content", required=True)


def check(diags: Any, config: State) -> None:
    path = config.get("path")
    if isinstance(path, str) and (why := wrong_path(path)):
        diags.add_error("Wrong path", why, path=["path"])


class Kind:
    """What all resources share: an object with a path and a content."""

    name: str
    attributes: list[Any]

    def __init__(self, provider: Files) -> None:
        self.provider = provider

    @classmethod
    def get_name(cls) -> str:
        return cls.name

    @classmethod
    def get_schema(cls) -> Any:
        return Schema(attributes=cls.attributes, version=0)

    @property
    def cloud(self) -> Cloud:
        return self.provider.cloud

    @property
    def type(self) -> str:
        return f"files_{self.name}"

    def validate(self, diags: Any, type_name: str, config: State) -> None:
        check(diags, config)

    def upgrade(self, ctx: Any, version: int, old: State) -> State:
        return old

    def content(self, state: State) -> str:
        return str(state["content"])

    def known(self, state: State) -> State:
        """The state with what only the cloud knows filled in."""
        return {**state, "id": state["path"]}

    def create(self, ctx: Any, planned: State) -> State | None:
        try:
            self.cloud.create(self.type, planned["path"], self.content(planned))
        except Refused as refusal:
            ctx.diagnostics.add_error("The object was not created", str(refusal))
            return None
        return self.known(planned)

    def read(self, ctx: Any, current: State) -> State | None:
        content = self.cloud.read(self.type, current["path"])
        return None if content is None else self.known({**current, "content": content})

    def plan(self, ctx: Any, current: State, planned: State) -> State:
        return planned

    def update(self, ctx: Any, current: State, planned: State) -> State | None:
        try:
            self.cloud.update(self.type, planned["path"], self.content(planned))
        except Refused as refusal:
            ctx.diagnostics.add_error("The object was not changed", str(refusal))
            return current
        return self.known(planned)

    def delete(self, ctx: Any, current: State) -> None:
        self.cloud.delete(self.type, current["path"])


class File(Kind):
    """An object with a content, or with a secret one."""

    name = "file"
    attributes = [  # noqa: RUF012 - the framework's schema, never changed
        *IDENTITY,
        attribute("content", optional=True),
        attribute("secret_content", optional=True, sensitive=True),
        attribute("sha256", computed=True),
    ]

    def validate(self, diags: Any, type_name: str, config: State) -> None:
        check(diags, config)
        if (config.get("content") is None) == (config.get("secret_content") is None):
            diags.add_error("Wrong content", "Set exactly one of content and secret_content.", path=["content"])

    def content(self, state: State) -> str:
        secret = state.get("secret_content")
        return str(state["content"] if secret is None else secret)

    def known(self, state: State) -> State:
        return {**state, "id": state["path"], "sha256": hashlib.sha256(self.content(state).encode()).hexdigest()}

    def read(self, ctx: Any, current: State) -> State | None:
        content = self.cloud.read(self.type, current["path"])
        if content is None:
            return None
        field = "content" if current.get("secret_content") is None else "secret_content"
        return self.known({**current, field: content})

    def plan(self, ctx: Any, current: State, planned: State) -> State:
        changed = {"content", "secret_content"} & ctx.changed_fields
        return {**planned, "sha256": Unknown} if changed else planned

    def import_(self, ctx: Any, id: str) -> State:  # noqa: A002 - the framework's name
        return {"id": id, "path": id, "content": None, "secret_content": None, "sha256": None}


class Flaky(Kind):
    """Cannot be created or changed while a file called `fails_while` lies in the root.

    With `partial` it fails after the deed, as a cloud does that answers too late: the object is there, and the apply
    failed half way.
    """

    name = "flaky"
    attributes = [  # noqa: RUF012 - the framework's schema, never changed
        *IDENTITY,
        CONTENT,
        attribute("fails_while", required=True),
        attribute("partial", Bool, optional=True),
    ]

    def create(self, ctx: Any, planned: State) -> State | None:
        if not self.failing(planned):
            return super().create(ctx, planned)
        created = super().create(ctx, planned) if planned["partial"] else None
        return self.fail(ctx, "create", planned, created)

    def update(self, ctx: Any, current: State, planned: State) -> State | None:
        if not self.failing(planned):
            return super().update(ctx, current, planned)
        changed = super().update(ctx, current, planned) if planned["partial"] else current
        return self.fail(ctx, "update", planned, changed)

    def failing(self, planned: State) -> bool:
        return self.cloud.there(planned["fails_while"])

    def fail(self, ctx: Any, op: str, planned: State, state: State | None) -> State | None:
        self.cloud.log(op, self.type, planned["path"], "failed")
        ctx.diagnostics.add_error("The cloud is out of order", f"{planned['fails_while']} is there.")
        return state


class Slow(Kind):
    """Takes `seconds` to be created or changed, or less: until a file called `until` lies in the root."""

    name = "slow"
    attributes = [  # noqa: RUF012 - the framework's schema, never changed
        *IDENTITY,
        CONTENT,
        attribute("seconds", Number, required=True),
        attribute("until", optional=True),
    ]

    def create(self, ctx: Any, planned: State) -> State | None:
        return super().create(ctx, planned) if self.waited(ctx, "create", planned) else None

    def update(self, ctx: Any, current: State, planned: State) -> State | None:
        return super().update(ctx, current, planned) if self.waited(ctx, "update", planned) else current

    def waited(self, ctx: Any, op: str, planned: State) -> bool:
        """False when Terraform was interrupted meanwhile: then nothing has happened."""
        self.cloud.log(op, self.type, planned["path"], "waiting")
        for _ in range(int(planned["seconds"] * 100)):
            if planned["until"] is not None and self.cloud.there(planned["until"]):
                break
            if stopping.wait(0.01):
                self.cloud.log(op, self.type, planned["path"], "interrupted")
                ctx.diagnostics.add_error("Interrupted", "Nothing was done.")
                return False
        return True


class Restless(Kind):
    """What is read is never what was written: the cloud adds a note of its own, and every plan wants it gone."""

    name = "restless"
    attributes = [*IDENTITY, CONTENT]  # noqa: RUF012 - the framework's schema, never changed

    def read(self, ctx: Any, current: State) -> State | None:
        found = super().read(ctx, current)
        return found and {**found, "content": f"{found['content']} (as the cloud sees it)"}


class Content:
    """Data source: the content of an object that somebody else manages."""

    def __init__(self, provider: Files) -> None:
        self.provider = provider

    @classmethod
    def get_name(cls) -> str:
        return "content"

    @classmethod
    def get_schema(cls) -> Any:
        return Schema(attributes=[attribute("path", required=True), attribute("content", computed=True)], version=0)

    def validate(self, diags: Any, type_name: str, config: State) -> None:
        check(diags, config)

    def read(self, ctx: Any, config: State) -> State | None:
        content = self.provider.cloud.read(ctx.type_name, config["path"])
        if content is None:
            ctx.diagnostics.add_error("No such object", f"{config['path']} does not exist.", path=["path"])
        return {**config, "content": content}


class Files:
    """The provider: where its cloud is (root, else the variable FILES_ROOT), and in which region."""

    cloud: Cloud

    def get_model_prefix(self) -> str:
        return "files_"

    def full_name(self) -> str:
        return "registry.terraform.io/reconciler/files"

    def get_provider_schema(self, diags: Any) -> Any:
        return Schema(attributes=[attribute("root", optional=True), attribute("region", optional=True)], version=0)

    def validate_config(self, diags: Any, config: State) -> None:
        region = config.get("region")
        if isinstance(region, str) and (why := wrong_path(region)):
            diags.add_error("Wrong region", why, path=["region"])

    def configure_provider(self, diags: Any, config: State) -> None:
        root = config.get("root") or os.environ.get("FILES_ROOT")
        if not root or not Path(root).is_absolute():
            diags.add_error("No root", "Set root, or FILES_ROOT in the provider's environment, to an absolute path.")
            return
        self.cloud = Cloud(Path(root), config.get("region") or "")

    def get_resources(self) -> list[type[Kind]]:
        return [File, Flaky, Slow, Restless]

    def get_data_sources(self) -> list[type[Content]]:
        return [Content]

    def get_functions(self) -> list[Any]:
        return []

    def new_resource(self, kind: type[Kind]) -> Kind:
        return kind(self)

    def new_data_source(self, kind: type[Content]) -> Content:
        return kind(self)


if __name__ == "__main__":
    from serve import serve

    serve(Files(), stopping)
