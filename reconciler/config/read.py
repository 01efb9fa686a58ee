"""Reading the host's files, with the environment's variables laid over them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel

from reconciler.config.controller import ControllerConfig
from reconciler.config.runner import RunnerConfig
from reconciler.desired import strict
from reconciler.desired.document import Document
from reconciler.desired.schema import SCHEMAS as FILES
from reconciler.desired.shape import Closed, check, models_in
from reconciler.errors import ConfigError, Place
from reconciler.model import Problem

C = TypeVar("C", bound=Closed)
Location = tuple[str | int, ...]

PREFIX = "RECONCILER_"
SCHEMAS: dict[str, type[BaseModel]] = {**FILES, "controller": ControllerConfig, "runner": RunnerConfig}


def load_controller(path: Path, environ: Mapping[str, str] = os.environ) -> ControllerConfig:
    """reconciler.yaml. `RECONCILER_HTTP_LISTEN` and its like win over the file's single values.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; the message has every mistake on a line.
    """
    document = _document(path)
    data = document.root.plain()
    found = dict(_overrides(ControllerConfig, data, environ))
    return _checked(ControllerConfig, document, path, data, found)


def load_runner(path: Path) -> RunnerConfig:
    """runner.yaml. Nothing overrides it: whoever starts the runner does not thereby own its rules.

    Raises:
        ConfigError: see `load_controller`.
    """
    document = _document(path)
    return _checked(RunnerConfig, document, path, document.root.plain(), {})


def show(config: Closed) -> dict[str, Any]:
    """The configuration in force as JSON, for `config show`. Secrets stand in files; variables' values are hidden."""
    shown: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    for environment in shown.get("environments", {}).values():
        environment["env"] = dict.fromkeys(environment["env"], "(hidden)")
    return shown


def _document(path: Path) -> Document:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}; check the path and who may read it", Place(str(path))
        ) from error
    document = strict.parse(str(path), data)
    if isinstance(document, Document):
        return document
    raise _error(document)


def _checked(
    model: type[C],
    document: Document,
    path: Path,
    data: dict[str, Any],
    overrides: Mapping[Location, Place],
) -> C:
    config = check(model, document, data, {"folder": path.absolute().parent}, overrides)
    if isinstance(config, list):
        raise _error(config)
    return config


def _error(problems: list[Problem]) -> ConfigError:
    first, *others = sorted(problems, key=lambda problem: (problem.place.line, problem.place.column))
    return ConfigError("\n".join([first.message, *map(str, others)]), first.place)


def _overrides(
    model: type[BaseModel], data: dict[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[Location, Place]]:
    """Put the variables' values into `data`, and tell which locations they filled."""
    for location, annotation in _scalars(model, ()):
        variable = PREFIX + "_".join(map(str, location)).upper()
        if variable in environ:
            inner = data
            for step in location[:-1]:
                inner = inner.setdefault(step, {})
                if not isinstance(inner, dict):
                    break
            else:
                inner[location[-1]] = _typed(environ[variable], annotation)
                yield location, Place(variable)


def _typed(text: str, annotation: Any) -> Any:
    kinds = {annotation, *get_args(annotation)}
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    return int(text) if int in kinds and re.fullmatch(r"[0-9]{1,9}", text) else text


def _scalars(model: type[BaseModel], location: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every single value of the model; whose word counts is for the file alone to say."""
    for name, field in model.model_fields.items():
        if name in ("signatures", "forge", "trigger", "proxy", "tls"):
            continue
        here = (*location, name)
        inner = [*models_in(field.annotation)]
        if not {get_origin(one) or one for one in (field.annotation, *get_args(field.annotation))} & {list, dict}:
            yield from _scalars(inner[0], here) if inner else [(here, field.annotation)]
