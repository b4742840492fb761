"""Makes an OpenAPI 3.1 document from a table of operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence  # attrs reads annotations at run time
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from galaxy_trio import __version__
from galaxy_trio.daemon.web.handlers import Handlers
from galaxy_trio.daemon.web.schemas import ERROR, SCHEMAS, TEXT
from galaxy_trio.messages import JSON


@attrs.frozen
class Parameter:
    """A parameter of an operation.

    Attributes:
        name: Its name.
        description: Its description.
        schema: Its JSON schema.
        where: ``query``, or ``path`` for a required part of the path.
    """

    name: str
    description: str
    schema: JSON = TEXT
    where: str = "query"

    def as_json(self) -> JSON:
        """The parameter in the document."""
        return {
            "name": self.name,
            "in": self.where,
            "schema": self.schema,
            "description": self.description,
            "required": self.where == "path",
        }


@attrs.frozen
class Answer:
    """A response of an operation.

    Attributes:
        description: When the client gets it.
        schema: The JSON schema of its body, by default that of an error.
        media_type: The media type of its body.
    """

    description: str
    schema: JSON = ERROR
    media_type: str = "application/json"

    def as_json(self) -> JSON:
        """The response in the document."""
        return {"description": self.description, "content": _content(self.schema, self.media_type)}


@attrs.frozen
class Operation:
    """An operation of the HTTP interface: its route, its handler and its documentation.

    Attributes:
        method: The HTTP method.
        path: The path, with parameters in braces.
        handler: The method of `Handlers` that handles its requests.
        summary: Its description.
        answers: Its responses by status.
        parameters: Its parameters.
        body: The JSON schema of the request's body; `None` without a body.
        id: Its id in the document; `None` for the handler's name.
        needs_token: Whether the daemon may require a token for it.
    """

    method: str
    path: str
    handler: Callable[[Handlers, Request], Awaitable[Response]]
    summary: str
    answers: Mapping[int, Answer]
    parameters: Sequence[Parameter] = ()
    body: JSON = None
    id: str | None = None
    needs_token: bool = True

    def as_json(self) -> JSON:
        """The operation in the document."""
        shown: dict[str, JSON] = {
            "operationId": self.id or self.handler.__name__,
            "summary": self.summary,
            "responses": {str(status): answer.as_json() for status, answer in self.answers.items()},
        }
        if self.parameters:
            shown["parameters"] = [parameter.as_json() for parameter in self.parameters]
        if self.body is not None:
            shown["requestBody"] = {"required": True, "content": _content(self.body)}
        if not self.needs_token:
            shown["security"] = []
        return shown


_CHECKS: Final = {
    401: Answer("The token is missing or wrong."),
    403: Answer("The request comes from a page of another site."),
    421: Answer("The name in the header `Host` is not allowed."),
}


def checked(answers: Mapping[int, Answer]) -> Mapping[int, Answer]:
    """Add the responses with which every request may be refused; see `security`."""
    return {**answers, **_CHECKS}


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


def _content(schema: JSON, media_type: str = "application/json") -> JSON:
    return {media_type: {"schema": schema}}
