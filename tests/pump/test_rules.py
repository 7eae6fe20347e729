"""What ends a relay: every row of the table, without a byte moved."""

from __future__ import annotations

import itertools

import pytest

from relay.pump import rules
from relay.pump.rules import (
    ANSWERING,
    ASKED,
    DELIVERED,
    GONE,
    LINGERING,
    OVER,
    PARENT_CHANGED,
    RELAYING,
    SILENCE,
    SSH_LEFT,
    STARTING,
    STDIN_ENDED,
    TARGET_DEAF,
    TARGET_ENDED,
    TARGET_HUNG_UP,
    Rules,
)

EVENTS = (DELIVERED, STDIN_ENDED, TARGET_ENDED, TARGET_DEAF, TARGET_HUNG_UP, SILENCE, PARENT_CHANGED, SSH_LEFT)
# From each state to which one, by the events as they stand above; a full stop where nothing changes.
GRID = {
    STARTING: (RELAYING, ASKED, LINGERING, ASKED, ".", ".", GONE, GONE),
    ASKED: (ANSWERING, ".", OVER, ".", ".", ".", GONE, GONE),
    RELAYING: (".", ANSWERING, LINGERING, ANSWERING, ".", ".", ".", GONE),
    ANSWERING: (".", ".", OVER, ".", ".", ".", ".", GONE),
    LINGERING: (".", OVER, ".", OVER, OVER, OVER, ".", GONE),
    OVER: (".",) * 8,
    GONE: (".",) * 8,
}
# How each state is come to.
PATHS: dict[str, tuple[str, ...]] = {
    STARTING: (),
    ASKED: (STDIN_ENDED,),
    RELAYING: (DELIVERED,),
    ANSWERING: (DELIVERED, STDIN_ENDED),
    LINGERING: (DELIVERED, TARGET_ENDED),
    OVER: (DELIVERED, STDIN_ENDED, TARGET_ENDED),
    GONE: (DELIVERED, SSH_LEFT),
}
OPEN = {
    STARTING: (1, 1),
    ASKED: (0, 1),
    RELAYING: (1, 1),
    ANSWERING: (0, 1),
    LINGERING: (1, 0),
    OVER: (0, 0),
    GONE: (0, 0),
}


def in_state(state: str) -> Rules:
    relay = Rules()
    for event in PATHS[state]:
        relay.heed(event)
    assert relay.state == state
    return relay


def decided(state: str, event: str, to: str) -> str:
    """What is to be done, in words that know no table."""
    if to == ".":
        return rules.NOTHING
    if to == GONE:
        return rules.LAST_WORDS if OPEN[state][0] else rules.NOTHING
    return {
        DELIVERED: rules.LEAVE_TERMINAL,
        STDIN_ENDED: rules.TELL_TARGET,
        TARGET_ENDED: rules.END_STDOUT,
    }.get(event, rules.NOTHING)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(GRID, EVENTS)))
def test_every_event_in_every_state(state: str, event: str) -> None:
    relay = in_state(state)
    to = GRID[state][EVENTS.index(event)]
    assert relay.heed(event) == decided(state, event, to)
    assert relay.state == (state if to == "." else to)
    assert (relay.out, relay.back) == OPEN[relay.state]
    assert relay.over == (relay.state in {OVER, GONE})


def test_the_grid_is_the_whole_table() -> None:
    assert rules.TABLE.keys() == GRID.keys()
    assert {event for row in rules.TABLE.values() for event in row} == set(EVENTS)


@pytest.mark.parametrize("events", list(itertools.permutations((DELIVERED, STDIN_ENDED, TARGET_ENDED))), ids=str)
def test_it_ends_when_both_ways_have_ended_in_whatever_order(events: tuple[str, ...]) -> None:
    relay = Rules()
    done = [relay.heed(event) for event in events]
    assert relay.state == OVER
    assert {rules.TELL_TARGET, rules.END_STDOUT} <= set(done)


def test_another_parent_means_nothing_once_a_byte_has_been_delivered() -> None:
    relay = in_state(RELAYING)
    assert relay.heed(PARENT_CHANGED) == rules.NOTHING
    assert relay.state == RELAYING


def test_what_takes_time_is_waited_for_in_three_states_only() -> None:
    """In each of these, an event follows from the silence: a poll without an end would miss it."""
    assert rules.PATIENCE.keys() == {
        state for state, row in rules.TABLE.items() if {SILENCE, PARENT_CHANGED} & row.keys()
    }
