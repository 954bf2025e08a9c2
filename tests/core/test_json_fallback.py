"""The value codec: any JSON value round-trips."""

from __future__ import annotations

import copy
import enum
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tastypy_fast import UnstorableValueError
from tastypy_fast._core.record_codec import decode_value, encode_value
from tests.support.json_values import FAST, STANDARD, scalars, text, values


def plain_json(value):
    """The round trip of the standard module. It is the model of the stored value."""
    return json.loads(json.dumps(value, ensure_ascii=False))


@given(values)
@example([float("nan"), float("inf"), -float("inf"), -0.0])
@example({"\ud800": "\ud83d\ude00"})
@example([2**64, -(2**64)])
@example({"": {"": []}})
def test_value_round_trips_with_its_type(value):
    before = copy.deepcopy(value)
    codec, payload = encode_value(value)
    assert repr(decode_value(codec, payload)) == repr(before)
    assert repr(value) == repr(before)


@given(values)
def test_payload_of_both_encoders_is_json(value):
    _, payload = encode_value(value)
    assert repr(json.loads(payload.decode("utf-8", "surrogatepass"))) == repr(value)


@given(st.recursive(
    scalars,
    lambda parts: st.lists(parts, max_size=4) | st.lists(parts, max_size=4).map(tuple)
    | st.dictionaries(text | st.integers() | st.floats() | st.booleans() | st.none(), parts, max_size=4),
    max_leaves=15,
))
def test_value_is_stored_as_json_dumps_would(value):
    if loses_an_item(value):
        with pytest.raises(UnstorableValueError, match="lost"):
            encode_value(value)
    else:
        assert repr(decode_value(*encode_value(value))) == repr(plain_json(value))


def loses_an_item(value):
    """Whether two keys of a dict become one key in JSON."""
    if isinstance(value, dict):
        return len(plain_json(dict.fromkeys(value))) < len(value) or any(map(loses_an_item, value.values()))
    return isinstance(value, (list, tuple)) and any(map(loses_an_item, value))


@pytest.mark.parametrize(("value", "codec"), [
    ("a", FAST), (1, FAST), (2**63 - 1, FAST), (-(2**63), FAST), (1.5, FAST), ([None, True], FAST), ((1, 2), FAST),
    ({"a": {"b": []}}, FAST), ({1: 2}, FAST), (2**63, STANDARD), (-(2**63) - 1, STANDARD), (math.nan, STANDARD),
    ([math.inf], STANDARD), ({"a": [-math.inf]}, STANDARD), ("\ud800", STANDARD), ({"\udfff": 1}, STANDARD),
], ids=repr)
def test_fast_path_is_used_for_every_value_that_it_writes_exactly(value, codec):
    assert encode_value(value)[0] == codec


class Colour(enum.IntEnum):
    RED = 7


class Loud(str):
    """A class whose repr() is not its value."""

    __slots__ = ()

    def __str__(self):
        return "LOUD"

    __repr__ = __str__

    def encode(self, *_):
        raise AssertionError("asked")


class Odd(int):
    def __repr__(self):
        return "odd"

    __str__ = __repr__

    def __int__(self):
        return 0


class Odder(float):
    def __repr__(self):
        return "odder"

    def __float__(self):
        return 0.0


@pytest.mark.parametrize(("value", "plain"), [
    (Colour.RED, 7), (Loud("x"), "x"), (Odd(5), 5), (Odd(2**80), 2**80), (Odder(2.5), 2.5),
    ({Loud("k"): Odd(1)}, {"k": 1}),
    ({Colour.RED: 1, Odd(5): 2, Odder(2.5): 3}, {"7": 1, "5": 2, "2.5": 3}), ([Odder("inf")], [math.inf]),
], ids=range(8))
def test_subclasses_are_stored_as_their_base_type(value, plain):
    assert repr(decode_value(*encode_value(value))) == repr(plain)


@pytest.mark.parametrize("digits", [4000, 5000])
def test_int_beyond_the_digit_limit_is_refused(digits):
    # Python itself writes no int of more than 4,300 digits.
    value = {"n": [10**digits]}
    if digits < 4300:
        assert decode_value(*encode_value(value)) == value
    else:
        with pytest.raises(UnstorableValueError, match=r"\.n\[0\]"):
            encode_value(value)
