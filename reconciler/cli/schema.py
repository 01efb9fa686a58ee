"""`reconciler schema NAME`: the JSON Schema of a file, for editors."""

from __future__ import annotations

import json

import click

from reconciler.config import SCHEMAS
from reconciler.desired.schema import draft7

TRIGGER = "trigger"


@click.command()
@click.argument("name", type=click.Choice(sorted([*SCHEMAS, TRIGGER])))
def command(name: str) -> None:
    """Print the JSON Schema (draft-07) of a file.

    NAME is entry, environment, lock, controller (reconciler.yaml) or runner (runner.yaml); trigger is the OpenAPI of
    what CI servers may ask. Editors find it by a first
    line like `# yaml-language-server: $schema=../../schemas/entry.schema.json`.
    """
    click.echo(published(name), nl=False)


def published(name: str) -> str:
    """The schema as it stands in the repository's schemas/ folder."""
    if name == TRIGGER:
        from reconciler.trigger.openapi import openapi

        return json.dumps(openapi(), indent=2) + "\n"
    return json.dumps(draft7(SCHEMAS[name], f"reconciler {name}"), indent=2) + "\n"
