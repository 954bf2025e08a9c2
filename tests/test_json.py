"""The value codec and the record around it: any JSON value comes back as it was."""

from __future__ import annotations

import contextlib
import copy
import enum
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tastypy_fast import PersistentOrderedDictIntegrityError, UnstorableValueError
from tastypy_fast._core.key_codec import decode_key, encode_key
from tastypy_fast._core.record_codec import decode_record, decode_value, encode_record, encode_value

FAST, STANDARD = 1, 2

text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | text
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -0.0, 0.0, 1.0, 1, True])
)
values = st.recursive(
    scalars, lambda parts: st.lists(parts, max_size=5) | st.dictionaries(text, parts, max_size=5), max_leaves=25
)


def plain_json(value):
    """The standard module's own round trip, the model of what a value is stored as."""
    return json.loads(json.dumps(value, ensure_ascii=False))


# repr() tells apart what == does not: True, 1 and 1.0, 0.0 and -0.0, the order of a dict; and NaN is itself.


@given(values)
@example([float("nan"), float("inf"), -float("inf"), -0.0])
@example({"\ud800": "\ud83d\ude00"})
@example([2**64, -(2**64)])
@example({"": {"": []}})
def test_value_comes_back_equal_and_of_the_same_type(value):
    before = copy.deepcopy(value)
    codec, payload = encode_value(value)
    assert repr(decode_value(codec, payload)) == repr(before)
    assert repr(value) == repr(before)


@given(values)
def test_payload_is_json_whoever_wrote_it(value):
    _, payload = encode_value(value)
    assert repr(json.loads(payload.decode("utf-8", "surrogatepass"))) == repr(value)


@given(st.recursive(
    scalars,
    lambda parts: st.lists(parts, max_size=4) | st.lists(parts, max_size=4).map(tuple)
    | st.dictionaries(text | st.integers() | st.floats() | st.booleans() | st.none(), parts, max_size=4),
    max_leaves=15,
))
def test_value_is_stored_as_the_standard_module_would(value):
    if loses_an_item(value):
        with pytest.raises(UnstorableValueError, match="lost"):
            encode_value(value)
    else:
        assert repr(decode_value(*encode_value(value))) == repr(plain_json(value))


def loses_an_item(value):
    """Whether two keys of a dict are one in JSON."""
    if isinstance(value, dict):
        return len(plain_json(dict.fromkeys(value))) < len(value) or any(map(loses_an_item, value.values()))
    return isinstance(value, (list, tuple)) and any(map(loses_an_item, value))


@pytest.mark.parametrize(("value", "codec"), [
    ("a", FAST), (1, FAST), (2**63 - 1, FAST), (-(2**63), FAST), (1.5, FAST), ([None, True], FAST), ((1, 2), FAST),
    ({"a": {"b": []}}, FAST), ({1: 2}, FAST), (2**63, STANDARD), (-(2**63) - 1, STANDARD), (math.nan, STANDARD),
    ([math.inf], STANDARD), ({"a": [-math.inf]}, STANDARD), ("\ud800", STANDARD), ({"\udfff": 1}, STANDARD),
], ids=repr)
def test_fast_path_takes_all_that_it_writes_exactly(value, codec):
    assert encode_value(value)[0] == codec


class Colour(enum.IntEnum):
    RED = 7


class Loud(str):
    """Not what it says."""

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
def test_subclasses_are_stored_as_what_they_are_underneath(value, plain):
    assert repr(decode_value(*encode_value(value))) == repr(plain)


@pytest.mark.parametrize("digits", [4000, 5000])
def test_int_too_long_for_text_is_refused_as_any_other_value(digits):
    # Python itself writes no int of more than 4,300 digits.
    value = {"n": [10**digits]}
    if digits < 4300:
        assert decode_value(*encode_value(value)) == value
    else:
        with pytest.raises(UnstorableValueError, match=r"\.n\[0\]"):
            encode_value(value)


keys = st.one_of(text, st.integers(), st.tuples(text, st.integers()))


@given(keys, values, st.booleans())
def test_record_comes_back(key, value, compress):
    codec, payload = encode_value(value)
    record = encode_record(codec, encode_key(key), payload, compress)
    assert decode_record(record) == (codec, encode_key(key), payload)


@given(keys)
def test_record_without_a_value_comes_back(key):
    assert decode_record(encode_record(0, encode_key(key), None)) == (0, encode_key(key), None)


@pytest.mark.parametrize("size", [1, 63, 64, 126, 127, 128, 129, 511, 512, 16_383, 16_384, 100_000])
def test_long_keys_and_values_come_back(size):
    key, (codec, payload) = encode_key("k" * size), encode_value("v" * size)
    for compress in (False, True):
        record = encode_record(codec, key, payload, compress)
        assert decode_record(record) == (codec, key, payload)
        assert len(record) <= len(key) + len(payload) + 5


@given(values)
def test_compressing_never_makes_a_record_longer(value):
    codec, payload = encode_value(value)
    assert len(encode_record(codec, b"\x02k", payload, True)) <= len(encode_record(codec, b"\x02k", payload))


def read_fully(data):
    codec, key, payload = decode_record(data)
    return decode_key(key), None if payload is None else decode_value(codec, payload)


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x00")
@example(b"\x00\x00")
@example(b"\x01\x01\x02")
@example(b"\x01\x02\x02a")
@example(b"\x00\x02\x02a{}")
@example(b"\x11\x02\x02a{}")
@example(b"\x03\x02\x02a{}")
@example(b"\x21\x02\x02a{}")
@example(b"\x01" + b"\x80" * 20 + b"\x01")
@example(b"\x01" + b"\xff" * 9 + b"\x7f")
@example(b"\x01" + b"\xff" * 8 + b"\x7f" + b"\x02a{}")
@example(b"\x02\x02\x02a" + b"9" * 5000)
@example(b"\x02\x02\x02a\xff")
@example(b"\x02\x02\x02a1 2")
def test_arbitrary_bytes_are_a_record_or_damage(data):
    try:
        key, _ = read_fully(data)
    except PersistentOrderedDictIntegrityError:
        return
    assert encode_key(key) in data


@pytest.mark.parametrize("codec", [FAST, STANDARD])
def test_value_nested_deeper_than_any_that_was_stored_is_damage(codec):
    # (written out, because a failure here would print all the brackets)
    try:
        decode_value(codec, b"[" * 100_000)
    except PersistentOrderedDictIntegrityError:
        return
    except RecursionError:
        pass
    pytest.fail("the deep value was no damage")


@given(keys, values, st.booleans(), st.data())
def test_record_with_damage_is_a_record_or_damage(key, value, compress, data):
    codec, payload = encode_value(value)
    record = bytearray(encode_record(codec, encode_key(key), payload, compress))
    how = data.draw(st.sampled_from(["set", "cut", "append"]))
    at = data.draw(st.integers(0, len(record) - 1))
    if how == "set":
        record[at] = data.draw(st.integers(0, 255))
    elif how == "cut":
        del record[at:]
    else:
        record += data.draw(st.binary(max_size=5))
    with contextlib.suppress(PersistentOrderedDictIntegrityError):
        read_fully(bytes(record))


@given(st.integers(-1, 20), st.binary(max_size=30))
def test_arbitrary_payload_is_a_value_or_damage(codec, payload):
    try:
        value = decode_value(codec, payload)
    except PersistentOrderedDictIntegrityError:
        return
    assert codec in (FAST, STANDARD)
    assert repr(decode_value(*encode_value(value))) == repr(value)
