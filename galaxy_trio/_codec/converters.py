"""cattrs converters between JSON values and classes, with the checks of strict_types.py for each field."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
from cattrs import Converter
from cattrs.fns import identity
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from galaxy_trio._codec.strict_types import Mismatch, check_members, mismatch, strict_hook
from galaxy_trio.messages import DeviceInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._codec.strict_types import Structure


def _strict_class(cls: type[attrs.AttrsInstance], converter: Converter, *, keeps_extra: bool = False) -> Structure:
    attrs.resolve_types(cls)
    fields = [field for field in attrs.fields(cls) if field.init and not (keeps_extra and field.name == "extra")]
    names = frozenset(field.name for field in fields)
    # A hook for each field: by itself, cattrs coerces a field of the wrong type.
    hooks = {field.name: strict_hook(field.type, converter) for field in fields}
    overrides = {name: override(struct_hook=hook) for name, hook in hooks.items()}
    if keeps_extra:
        overrides["extra"] = override(omit=True)
    make = cast("Callable[..., Callable[[dict[str, object], object], attrs.AttrsInstance]]", make_dict_structure_fn)
    build = make(cls, converter, _cattrs_detailed_validation=False, **overrides)

    def explain(data: dict[str, object]) -> Mismatch | None:
        for field in fields:
            if field.name in data:
                try:
                    hooks[field.name](data[field.name], field.type)
                except Mismatch as found:
                    return found.within(field.name)
        missing = [field.name for field in fields if field.default is attrs.NOTHING and field.name not in data]
        return Mismatch("a value", "").within(missing[0]) if missing else None

    def structure(value: object, _: object) -> object:
        if type(value) is not dict:
            raise mismatch("an object", value)
        data = cast("dict[str, object]", value)
        if keeps_extra and None in data.values():
            # In a device's information null means absent, for lists too.
            data = {name: item for name, item in data.items() if item is not None or name not in names}
        try:
            instance = build(data, cls)
        except (Mismatch, KeyError):
            found = explain(data)
            if found is None:
                # A KeyError that the class itself raised.
                raise
            raise found from None
        if keeps_extra and not data.keys() <= names:
            extra = {name: item for name, item in data.items() if name not in names}
            return cast("Callable[..., object]", attrs.evolve)(instance, extra=extra)
        return instance

    return structure


def _writer_for(cls: type[attrs.AttrsInstance], converter: Converter) -> Callable[[object], dict[str, object]]:
    """Make a writer that omits defaults and passes enums and JSON values unchanged, because json can write them."""
    attrs.resolve_types(cls)
    nested = {"actions", "action_results"}
    overrides = {
        # Written although absent means a device: it is clearer to a reader.
        field.name: override(
            unstruct_hook=None if field.name in nested else identity, omit_if_default=field.name != "client_type"
        )
        for field in attrs.fields(cls)
    }
    make = cast("Callable[..., Callable[[object], dict[str, object]]]", make_dict_unstructure_fn)
    return make(cls, converter, **overrides)


def make_converter() -> Converter:
    """Make a converter whose `structure` raises `Mismatch` for a value that does not fit its class, and ignores unknown fields."""
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook_factory(attrs.has, _strict_class)
    converter.register_structure_hook_func(
        lambda wanted: wanted is DeviceInfo, _strict_class(DeviceInfo, converter, keeps_extra=True)
    )
    converter.register_unstructure_hook_factory(attrs.has, _writer_for)
    return converter


def make_closed_converter() -> Converter:
    """Make a converter that refuses unknown fields and recursive classes, so that its time depends only on the size of a value."""
    converter = Converter(detailed_validation=False)
    begun: list[object] = []

    def closed_class(cls: type[attrs.AttrsInstance], converter: Converter) -> Structure:
        if cls in begun:
            raise TypeError(f"{cls.__name__} holds itself")
        begun.append(cls)
        try:
            structure = _strict_class(cls, converter)
        finally:
            begun.remove(cls)
        names = [field.name for field in attrs.fields(cls) if field.init]

        def refuse_unknown(value: object, wanted: object) -> object:
            instance = structure(value, wanted)
            check_members(cast("dict[str, object]", value), names)
            return instance

        return refuse_unknown

    converter.register_structure_hook_factory(attrs.has, closed_class)
    return converter
