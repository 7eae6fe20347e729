"""Small immutable values, without the start-up time of dataclasses or collections."""

from __future__ import annotations

__all__ = ["Record", "Value"]

TYPE_CHECKING = False  # typing costs start-up time, too; type checkers know this name
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self
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


class Value:
    """Equality, hash and repr by the attributes, which are set once."""

    __slots__: tuple[str, ...] = ()

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        """The attributes that make up the value."""
        return cls.__slots__

    def _set(self, **values: object) -> None:
        """Set the attributes; for `__init__` only."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _key(self) -> tuple[object, ...]:
        """What makes two values equal."""
        return tuple(getattr(self, name) for name in self._names())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._names())})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: values do not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: values do not change")
