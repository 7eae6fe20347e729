"""A record is a named tuple of typing's, as far as it goes."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from relay.ssh.record import Record


class Ours(Record):
    """A record."""

    name: str
    size: int = 3

    @property
    def twice(self) -> int:
        return 2 * self.size


class Theirs(NamedTuple):
    name: str
    size: int = 3


def test_a_record_is_as_a_named_tuple() -> None:
    ours, theirs = Ours("a"), Theirs("a")
    assert ours == tuple(theirs) == ("a", 3)
    assert hash(ours) == hash(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert (ours.name, ours.size, ours.twice) == ("a", 3, 6)
    assert Ours(size=1, name="b") == Ours("b", 1) == ("b", 1)
    assert ours._replace(name="c") == ("c", 3)
    name, size = ours
    assert (name, size) == ("a", 3)
    with pytest.raises(AttributeError):
        ours.name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), (("a", 1, 2), {}), (("a",), {"name": "b"}), (("a",), {"x": 1})]
)
def test_what_is_no_record(values: tuple[object, ...], named: dict[str, object]) -> None:
    for kind in Ours, Theirs:
        with pytest.raises(TypeError):
            kind(*values, **named)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Ours("a")._replace(x=1)  # type: ignore[call-arg]
