"""The host's own files, reconciler.yaml and runner.yaml: read strictly, with the place of every mistake."""

from __future__ import annotations

from reconciler.config.controller import ControllerConfig
from reconciler.config.credentials import Credential
from reconciler.config.fields import CatalogRepo, EnvironmentsRepo, Forge, Repository
from reconciler.config.read import SCHEMAS, load_controller, load_runner, show
from reconciler.config.runner import AdoptS3, Allow, Engine, HostEnvironment, RunnerConfig

__all__ = [
    "SCHEMAS",
    "AdoptS3",
    "Allow",
    "CatalogRepo",
    "ControllerConfig",
    "Credential",
    "Engine",
    "EnvironmentsRepo",
    "Forge",
    "HostEnvironment",
    "Repository",
    "RunnerConfig",
    "load_controller",
    "load_runner",
    "show",
]
