"""Which protocol two versions speak with each other, as a table; and that old agents read what we write."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage
from reuna.core.records import Hello
from reuna.wire import OLDEST, VERSION, agreed, decode, encode
from reuna.wire.codec import SINCE

#: what a node speaks, oldest and newest -> what is spoken with it by one that speaks 2 to 3
TABLE = {
    (0, 1): None,
    (1, 1): None,
    (1, 2): 2,
    (2, 2): 2,
    (2, 3): 3,
    (3, 3): 3,
    (3, 4): 3,
    (4, 4): None,
    (4, 9): None,
}


@pytest.mark.parametrize("theirs", TABLE)
def test_two_versions_speak_the_newest_protocol_that_both_have(theirs: tuple[int, int]) -> None:
    assert (OLDEST, VERSION) == (2, 3), "write the table again for the new protocol"
    assert agreed(*theirs) == TABLE[theirs]


@given(oldest=st.integers(0, 20), more=st.integers(0, 20))
def test_what_is_agreed_is_spoken_by_both_or_nothing_is(oldest: int, more: int) -> None:
    theirs, ours = range(oldest, oldest + more + 1), range(OLDEST, VERSION + 1)
    both = set(theirs) & set(ours)
    assert agreed(oldest, oldest + more) == (max(both) if both else None)


def test_every_message_is_written_so_that_the_protocol_before_reads_it() -> None:
    assert all(since <= OLDEST for since in SINCE.values()), (
        "a type of message that only this protocol reads goes to nobody who is behind: let `agreed` decide"
    )
    assert encode(Hello("a", "b", "0.2.0", protocol=VERSION))[0] <= OLDEST


def test_who_does_not_say_what_it_speaks_speaks_the_first_protocol() -> None:
    assert decode(Hello, encode(Hello("a", "b", "0.1.0"))).protocol == 1


@pytest.mark.parametrize("number", [-1, 1_001, 2**63])
def test_a_protocol_number_that_none_can_be_is_refused(number: int) -> None:
    fields = {"node": "a", "boot": "b", "version": "1", "protocol": number}
    with pytest.raises(BadMessage, match="protocol"):
        decode(Hello, bytes((1, 5)) + msgspec.msgpack.encode(fields))
