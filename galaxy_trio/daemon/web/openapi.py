"""Makes an OpenAPI 3.1 document from a table of operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence  # attrs reads annotations at run time
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from galaxy_trio import __version__
from galaxy_trio.daemon.web.handlers import Handlers
from galaxy_trio.daemon.web.schemas import SCHEMAS, TEXT, ref
from galaxy_trio.messages import JSON

_ERROR: Final = ref("Error")


def parameter(name: str, description: str, schema: JSON = TEXT, where: str = "query") -> JSON:
    """A parameter of an operation: of the query, or a required part of the path."""
    return {"name": name, "in": where, "schema": schema, "description": description, "required": where == "path"}


def answer(description: str, schema: JSON = _ERROR, media_type: str = "application/json") -> JSON:
    """A response of an operation, by default an error."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


_REFUSALS: Final = {
    403: answer("The request comes from a page of another site."),
    421: answer("The name in the header `Host` is not allowed."),
}
_NO_TOKEN: Final = {401: answer("The token is missing or wrong.")}


@attrs.frozen
class Operation:
    """An operation of the HTTP interface: its route, its handler and its documentation.

    Attributes:
        method: The HTTP method.
        path: The path, with parameters in braces.
        handler: The method of `Handlers` that handles its requests.
        summary: Its description.
        answers: The responses of its handler by status; the checks before it add theirs.
        parameters: Its parameters.
        body: The name of the schema of the request's body; `None` without a body.
        needs_token: Whether the daemon may require a token for it.
    """

    method: str
    path: str
    handler: Callable[[Handlers, Request], Awaitable[Response]]
    summary: str
    answers: Mapping[int, JSON]
    parameters: Sequence[JSON] = ()
    body: str | None = None
    needs_token: bool = True

    def as_json(self) -> JSON:
        """The operation in the document."""
        answers = {**self.answers, **_REFUSALS, **(_NO_TOKEN if self.needs_token else {})}
        shown: dict[str, JSON] = {
            "operationId": self.handler.__name__,
            "summary": self.summary,
            "responses": {str(status): answers[status] for status in sorted(answers)},
        }
        if self.parameters:
            shown["parameters"] = list(self.parameters)
        if self.body is not None:
            shown["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(self.body)}}}
        if not self.needs_token:
            shown["security"] = []
        return shown


def make_document(operations: Sequence[Operation]) -> dict[str, JSON]:
    """The OpenAPI document of these operations."""
    paths: dict[str, dict[str, JSON]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.as_json()
    return {
        "openapi": "3.1.0",
        "info": {"title": "galaxy-trio daemon", "version": __version__},
        "security": [{"token": []}],
        "paths": {**paths},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "schemas": SCHEMAS},
    }
