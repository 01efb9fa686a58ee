"""The trigger's interface for programs, as OpenAPI has it."""

from __future__ import annotations

from typing import Any

from reconciler import __version__
from reconciler.model import Health, Sync
from reconciler.trigger.app import Asked
from reconciler.trigger.outcome import Verdict

Shape = dict[str, Any]
_TEXT: Shape = {"type": "string"}
_TIME: Shape = {"type": "string", "format": "date-time"}
_COMMIT: Shape = {"type": ["string", "null"], "pattern": "^[0-9a-f]{40}$"}
_ID: Shape = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_WORDS = {
    400: "the body is none",
    401: "who calls is not proven",
    403: "the caller may not wake this scope",
    404: "no such id that the caller may read",
    405: "there is no such request",
    413: "the body is too long",
    415: "the body is not application/json",
    429: "too many requests; Retry-After says when",
    503: "it cannot be done now",
}
_EXAMPLES = {
    "environment": {"scope": "prod"},
    "afterMerge": {"scope": "prod", "commit": "0123456789abcdef0123456789abcdef01234567"},
}


def openapi() -> Shape:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "reconciler's trigger", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": {
            "/v1/reconcile": {"post": _wake()},
            "/v1/reconcile/{id}": {
                "get": _read("readOutcome", "application/json", {"$ref": "#/components/schemas/Outcome"})
            },
            "/v1/reconcile/{id}/events": {"get": _read("readEvents", "application/x-ndjson", _TEXT)},
        },
        "security": [{"oidc": []}, {"certificate": []}],
        "components": {
            "schemas": {
                "Asked": Asked.model_json_schema(),
                "Accepted": _ACCEPTED,
                "Outcome": _OUTCOME,
                "Refusal": _REFUSAL,
            },
            "securitySchemes": {
                "oidc": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


def _object(**properties: Shape) -> Shape:
    return {"type": "object", "properties": properties, "required": list(properties)}


_REFUSAL = _object(error=_TEXT, reason=_TEXT)
_ACCEPTED = _object(id=_ID, scope=_TEXT, commit=_COMMIT, at=_TIME, repeated={"type": "boolean"})
_UNIT = _object(
    **dict.fromkeys(("unit", "environment", "phase", "reason", "message"), _TEXT),
    sync={"enum": [str(one) for one in Sync]},
    health={"enum": [str(one) for one in Health]},
    held={"type": "boolean"},
    settled={"type": "boolean"},
)
_OUTCOME = _object(
    **{**_ACCEPTED["properties"], "head": _COMMIT},
    result={"enum": [str(one) for one in Verdict]},
    reason=_TEXT,
    message=_TEXT,
    units={"type": "array", "items": _UNIT},
    total={"type": "integer"},
    settled={"type": "integer"},
)
_OUTCOME["properties"].pop("repeated")
_OUTCOME["required"].remove("repeated")


def _answers(*codes: int) -> Shape:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {str(code): {"description": _WORDS[code], "content": content} for code in codes}


def _wake() -> Shape:
    shape, examples = (
        {"$ref": "#/components/schemas/Asked"},
        {name: {"value": asked} for name, asked in _EXAMPLES.items()},
    )
    body = {"required": True, "content": {"application/json": {"schema": shape, "examples": examples}}}
    accepted = {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}}
    links = {
        name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
        for name in ("readOutcome", "readEvents")
    }
    return {
        "operationId": "wake",
        "summary": "Have a scope looked at now. Content cannot be sent.",
        "requestBody": body,
        "responses": {
            "202": {"description": "it is, or was already by the same proof", "content": accepted, "links": links},
            **_answers(400, 401, 403, 405, 413, 415, 429, 503),
        },
    }


def _read(name: str, media: str, schema: Shape) -> Shape:
    return {
        "operationId": name,
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": _ID}],
        "responses": {
            "200": {"description": "what came of it so far", "content": {media: {"schema": schema}}},
            **_answers(401, 404, 405, 429, 503),
        },
    }
