"""AIP's messages as immutable data.

Fields and values have the names of the wire; see docs/reference/wire.md. A field that is None is absent on the wire. "Any JSON" means
a value as :mod:`json` returns it: None, bool, int, float, str, list or dict.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import attrs

from galaxy_trio.errors import TaskFailed

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any JSON value."""


class ClientType(StrEnum):
    """The role in which a peer registers with the server."""

    DEVICE = "device"
    CONSTELLATION = "constellation"


class TaskStatus(StrEnum):
    """The ``status`` of a message, or of an ended task."""

    CONTINUE = "continue"
    COMPLETED = "completed"
    FAILED = "failed"
    OK = "ok"
    ERROR = "error"


class ClientMessageType(StrEnum):
    """The type of a message to the server."""

    REGISTER = "register"
    HEARTBEAT = "heartbeat"
    TASK = "task"
    TASK_END = "task_end"
    COMMAND_RESULTS = "command_results"
    DEVICE_INFO_REQUEST = "device_info_request"
    DEVICE_INFO_RESPONSE = "device_info_response"
    ERROR = "error"


class ServerMessageType(StrEnum):
    """The type of a message from the server."""

    TASK = "task"
    COMMAND = "command"
    TASK_END = "task_end"
    HEARTBEAT = "heartbeat"
    ERROR = "error"
    DEVICE_INFO_REQUEST = "device_info_request"
    DEVICE_INFO_RESPONSE = "device_info_response"


class ToolType(StrEnum):
    """Whether a command changes something on the device or only reads."""

    ACTION = "action"
    DATA_COLLECTION = "data_collection"


class ResultStatus(StrEnum):
    """The outcome of a command."""

    SUCCESS = "success"
    FAILURE = "failure"
    SKIPPED = "skipped"
    NONE = "none"


class Platform(StrEnum):
    """The platforms that AIP names. If a device names another one, `DeviceInfo.platform` is its text."""

    WINDOWS = "windows"
    LINUX = "linux"
    DARWIN = "darwin"
    ANDROID = "android"
    IOS = "ios"


class PlatformType(StrEnum):
    """The kinds of device that AIP names. If a device names another one, `DeviceInfo.platform_type` is its text."""

    COMPUTER = "computer"
    MOBILE = "mobile"
    WEB = "web"
    IOT = "iot"


@attrs.frozen
class Command:
    """One call of a tool on a device. See "Parts" in docs/reference/wire.md."""

    tool_name: str
    tool_type: ToolType
    parameters: dict[str, JSON] | None = None
    call_id: str | None = None


@attrs.frozen
class CommandResult:
    """The result of one `Command`, with the same `call_id`. See "Parts" in docs/reference/wire.md."""

    status: ResultStatus
    error: str | None = None
    result: JSON = None
    namespace: str | None = None
    call_id: str | None = None


@attrs.frozen
class ToolInfo:
    """One tool in a device's answer to ``list_tools``. See "Listing tools" in docs/reference/wire.md.

    Attributes:
        tool_key: ``tool_type::tool_name``; unique on a device.
        tool_name: The name that commands use; unique on a device.
        namespace: The tool's origin, such as an MCP server's name; ``default`` for tools without one.
        tool_type: Whether the tool changes something on the device or only reads: a value of `ToolType`.
        title: The name to show to a person.
        description: The purpose of the tool, in words.
        input_schema: The JSON Schema of its parameters.
        output_schema: The JSON Schema of its result.
        meta: Further data about the tool.
        annotations: Hints about the tool's behaviour, as MCP defines them.
    """

    tool_key: str
    tool_name: str
    namespace: str
    tool_type: str
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, JSON] | None = None
    output_schema: dict[str, JSON] | None = None
    meta: dict[str, JSON] | None = None
    annotations: dict[str, JSON] | None = None


@attrs.frozen
class ClientMessage:
    """A message to the server. See "ClientMessage" in docs/reference/wire.md."""

    type: ClientMessageType
    status: TaskStatus
    client_type: ClientType = ClientType.DEVICE
    session_id: str | None = None
    task_name: str | None = None
    client_id: str | None = None
    target_id: str | None = None
    request: str | None = None
    action_results: list[CommandResult] | None = None
    timestamp: str | None = None
    request_id: str | None = None
    prev_response_id: str | None = None
    error: str | None = None
    metadata: dict[str, JSON] | None = None


@attrs.frozen
class ServerMessage:
    """A message from the server. See "ServerMessage" in docs/reference/wire.md."""

    type: ServerMessageType
    status: TaskStatus
    user_request: str | None = None
    agent_name: str | None = None
    process_name: str | None = None
    root_name: str | None = None
    actions: list[Command] | None = None
    messages: list[str] | None = None
    error: str | None = None
    session_id: str | None = None
    task_name: str | None = None
    timestamp: str | None = None
    response_id: str | None = None
    result: JSON = None
    stop_on_failure: bool | None = None
    """False if the actions of a ``command`` continue after a failure. An extension of this package; other devices ignore it."""


@attrs.frozen
class DeviceInfo:
    """The server's information about a device. See "Device information" in docs/reference/wire.md.

    Only `device_id` and `platform` are always present. `platform` and `platform_type` are members of `Platform` and `PlatformType` if AIP
    names them, otherwise the received text. Keys that AIP does not name are kept in `extra`.

    Attributes:
        memory_total_gb: In GiB, with two decimals.
    """

    device_id: str
    platform: Platform | str
    os_version: str | None = None
    cpu_count: int | None = None
    memory_total_gb: float | None = None
    hostname: str | None = None
    ip_address: str | None = None
    supported_features: list[str] = attrs.field(factory=list[str])
    platform_type: PlatformType | str | None = None
    schema_version: str | None = None
    custom_metadata: dict[str, JSON] = attrs.field(factory=dict[str, "JSON"])
    tags: list[str] = attrs.field(factory=list[str])
    extra: dict[str, JSON] = attrs.field(factory=dict[str, "JSON"])


@attrs.frozen
class TaskResult:
    """The result of a task that ended.

    Attributes:
        status: `TaskStatus.COMPLETED` or `TaskStatus.FAILED`.
        result: The value that the session returned: any JSON. A failed task may have one too.
        error: The reason of a failure, in the server's words. None also for a session that ended in its error state.
    """

    task_id: str
    device_id: str
    status: TaskStatus
    result: JSON = None
    error: str | None = None

    def unwrap(self) -> JSON:
        """Return the result of a completed task.

        Raises:
            TaskFailed: The task failed. The error has the task's result, if there is one.
        """
        if self.status is TaskStatus.COMPLETED:
            return self.result
        why = self.error or "it ended in its error state"
        raise TaskFailed(f"task {self.task_id} failed on device {self.device_id!r}: {why}", result=self.result)
