"""Task results and errors as users see them."""

from __future__ import annotations

import pytest
import trio

from galaxy_trio.errors import ConnectionLost, ConnectTimeout, HandshakeRejected, RequestTimeout, TaskFailed
from galaxy_trio.messages import TaskResult, TaskStatus


def test_unwrap_returns_the_result_of_a_completed_task() -> None:
    assert TaskResult("t1", "device_001", TaskStatus.COMPLETED, {"a": 1}).unwrap() == {"a": 1}


@pytest.mark.parametrize(
    ("error", "why"), [("no such window", "no such window"), (None, "it ended in its error state")]
)
def test_unwrap_raises_an_error_with_the_result_of_a_failed_task(error: str | None, why: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        TaskResult("t1", "device_001", TaskStatus.FAILED, {"a": 1}, error).unwrap()
    assert str(caught.value) == f"task t1 failed on device 'device_001': {why}"
    assert caught.value.result == {"a": 1}


def test_errors_have_their_details_and_subclass_trios_errors() -> None:
    lost = ConnectionLost("it broke", reason="reset", code=1001)
    assert (lost.reason, lost.code) == ("reset", 1001)
    assert ConnectionLost("it broke").code == 1006
    assert HandshakeRejected("no", status_code=403).status_code == 403
    assert issubclass(ConnectionLost, trio.BrokenResourceError)
    assert issubclass(ConnectTimeout, trio.TooSlowError)
    assert issubclass(RequestTimeout, trio.TooSlowError)
