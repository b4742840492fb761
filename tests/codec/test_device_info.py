"""Device information is read leniently about unknown platforms and keys, and strictly otherwise."""

from __future__ import annotations

import pytest

from galaxy_trio._codec.codec import structure_device_info, unstructure_device_info
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import JSON, DeviceInfo, Platform, PlatformType
from tests.codec.support.refusals import chain, refusal
from tests.codec.support.wire_classes import hints_of

DEVICE: dict[str, JSON] = {
    "device_id": "device_001",
    "platform": "linux",
    "os_version": "6.8",
    "cpu_count": 8,
    "memory_total_gb": 15.63,
    "hostname": "edge-1",
    "ip_address": "10.0.0.1",
    "supported_features": ["gui", "cli"],
    "platform_type": "computer",
    "schema_version": "1.0",
    "custom_metadata": {"rack": 3},
    "tags": ["lab"],
}


def test_device_information_survives_reading_and_writing() -> None:
    info = structure_device_info(DEVICE)
    assert info == DeviceInfo(
        "device_001", Platform.LINUX, "6.8", 8, 15.63, "edge-1", "10.0.0.1", ["gui", "cli"], PlatformType.COMPUTER, "1.0",
        {"rack": 3}, ["lab"],
    )  # fmt: skip
    assert info.platform is Platform.LINUX
    assert info.platform_type is PlatformType.COMPUTER
    assert unstructure_device_info(info) == DEVICE


def test_an_unknown_platform_is_kept_as_text() -> None:
    info = structure_device_info({**DEVICE, "platform": "plan9", "platform_type": "Computer"})
    assert (info.platform, info.platform_type) == ("plan9", "Computer")
    assert type(info.platform) is type(info.platform_type) is str


def test_unknown_keys_are_kept_even_one_named_extra() -> None:
    unknown: dict[str, JSON] = {"gpu": {"count": 2}, "extra": {"extra": 1}, "nothing": None, "": []}
    info = structure_device_info({**DEVICE, **unknown})
    assert info.extra == unknown
    assert unstructure_device_info(info) == {**DEVICE, **unknown}


def test_extra_is_empty_without_unknown_keys() -> None:
    assert structure_device_info(DEVICE).extra == {}


def test_an_unknown_key_never_replaces_a_known_one() -> None:
    info = DeviceInfo("device_001", Platform.LINUX, extra={"device_id": "another", "gpu": 1})
    assert unstructure_device_info(info) == {"device_id": "device_001", "platform": "linux", "gpu": 1}


def test_null_in_device_information_means_absent() -> None:
    nothing: dict[str, JSON] = dict.fromkeys(hints_of(DeviceInfo))
    info = structure_device_info({**nothing, "device_id": "d", "platform": "ios"})
    assert info == DeviceInfo("d", Platform.IOS)
    assert unstructure_device_info(info) == {"device_id": "d", "platform": "ios"}


@pytest.mark.parametrize("name", ["device_id", "platform"])
def test_device_information_without_id_or_platform_is_refused(name: str) -> None:
    assert (
        str(refusal(structure_device_info, {**DEVICE, name: None})) == f"invalid device information: {name} is missing"
    )


def test_an_integer_memory_size_becomes_a_float() -> None:
    memory = structure_device_info({**DEVICE, "memory_total_gb": 16}).memory_total_gb
    assert (memory, type(memory)) == (16.0, float)


def test_a_memory_size_beyond_floats_is_refused() -> None:
    error = refusal(structure_device_info, {**DEVICE, "memory_total_gb": 10**400})
    assert str(error).startswith(
        "invalid device information: memory_total_gb: expected a number or null, got the integer 1000"
    )


@pytest.mark.parametrize(("value", "came"), [(None, "null"), ([], "the list []"), ("linux", "the string 'linux'")])
def test_device_information_must_be_an_object(value: JSON, came: str) -> None:
    error = refusal(structure_device_info, value)
    assert str(error) == f"invalid device information: expected an object, got {came}"
    assert chain(error) == [error]


def test_device_information_with_a_very_long_integer_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="very many digits"):
        structure_device_info({"device_id": "d", "platform": "linux", "hostname": 10**5000})
