"""Small immutable values, without the start-up time of dataclasses or collections."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs start-up time, too; type checkers know this name
if TYPE_CHECKING:
    from typing import NoReturn


class Value:
    """A value: its attributes are set once, and make up its equality, hash and repr."""

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
        """The attributes' values; two values with the same are equal."""
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
