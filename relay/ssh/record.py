"""Named tuples of our own client, without the start-up time of typing's."""

from __future__ import annotations

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self
    from typing import NamedTuple as Record
else:

    class Record(tuple):
        """A typing.NamedTuple, as far as it is used here: fields by their annotations, defaults, and _replace.

        That one compiles each annotation, and the first thing that is compiled costs 10 million instructions.
        """

        __slots__ = ()
        _fields: tuple[str, ...] = ()
        _field_defaults: dict[str, Any] = {}  # noqa: RUF012  (never changed)

        def __init_subclass__(cls) -> None:
            names = tuple(vars(cls).get("__annotations__", ()))
            cls._fields = names
            cls._field_defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
            for place, name in enumerate(names):
                setattr(cls, name, property(lambda self, place=place: tuple.__getitem__(self, place)))

        def __new__(cls, *values: Any, **named: Any) -> Self:  # noqa: D102
            if len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(values)}")
            given = cls._field_defaults | named
            more = [given[name] for name in cls._fields[len(values) :] if name in given]
            made = super().__new__(cls, (*values, *more))
            if len(made) < len(cls._fields) or not set(named) <= set(cls._fields[len(values) :]):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            return made

        def _replace(self, **changes: Any) -> Self:
            return type(self)(**(dict(zip(self._fields, self, strict=True)) | changes))

        def __repr__(self) -> str:
            pairs = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"
