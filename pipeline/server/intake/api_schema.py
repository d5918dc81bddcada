"""The HTTP API as an OpenAPI document, at /openapi.json: routes, the JSON that they take, errors.

There is no page beside it: those of FastAPI load scripts from other servers.
Routes validate their bodies themselves (bounded_json.py), so the bodies are named here.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel

_PREFIX = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_UPLOAD = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
}


# what a route answers with, where that is not JSON with status 200
_REPLIES = {
    ("/metrics", "get"): ("200", "text/plain"),
    ("/v1/notices", "get"): ("200", "text/event-stream"),
    ("/v1/files/{file_id}/content", "get"): ("200", "video/*"),
    ("/v1/videos/{video_id}/content", "get"): ("200", "video/*"),
    ("/v1/videos/{video_id}/clip", "get"): ("200", "video/*"),
    ("/v1/videos", "post"): ("201", "application/json"),
    ("/v1/videos/{video_id}/play", "post"): ("201", "application/json"),
    ("/v1/videos/{video_id}/picture", "get"): ("200", "image/jpeg"),
    ("/v1/streams", "post"): ("201", "application/json"),
    ("/v1/streams/{name}/alerts", "post"): ("201", "application/json"),
}
_FRAME = "/v1/videos/{video_id}/frame"  # takes the bytes of a JPEG
_STREAMING = ("/v1/chat/completions", "/v1/responses")  # with "stream": true


def add_schema(app: FastAPI, bodies: Mapping[str, type[BaseModel]]) -> None:
    """Serve the document of the routes that the application has by then.

    bodies: path -> what a POST to it takes as JSON.
    """
    document: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        if not document:
            document.update(_document(app, bodies))
        return JSONResponse(document)


def _document(app: FastAPI, bodies: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version="1", routes=app.routes)
    schemas: dict[str, Any] = {"Error": _ERROR}
    for path, model in bodies.items():
        own = model.model_json_schema(ref_template=_PREFIX + "{model}")
        schemas |= own.pop("$defs", {}) | {model.__name__: own}
        if "post" in document["paths"].get(path, {}):  # a server of several banks has no streams
            document["paths"][path]["post"]["requestBody"] = _content(
                "application/json", {"$ref": _PREFIX + model.__name__}
            )
    document["paths"]["/v1/files"]["post"]["requestBody"] = _content("multipart/form-data", _UPLOAD)
    if _FRAME in document["paths"]:
        picture = _content("application/octet-stream", {"type": "string", "format": "binary"})
        document["paths"][_FRAME]["post"]["requestBody"] = picture
    error = {"description": "An error, in one sentence."} | _content(
        "application/json", {"$ref": f"{_PREFIX}Error"}, required=False
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            status, kind = _REPLIES.get((path, method), ("200", "application/json"))
            content = {kind: {"schema": {"type": "object"} if kind.endswith("json") else {}}}
            if path in _STREAMING:
                content["text/event-stream"] = {"schema": {}}
            # in FastAPI's place: its errors have a form of their own, which is not ours
            operation["responses"] = {
                status: {"description": "Done.", "content": content},
                "default": error,
            }
            if kind == "video/*":
                operation["responses"]["206"] = operation["responses"][status]
    document["components"] = {
        "schemas": schemas,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{}, {"key": []}]
    return document


def _content(kind: str, schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {"content": {kind: {"schema": schema}}}
    return content | ({"required": True} if required else {})
