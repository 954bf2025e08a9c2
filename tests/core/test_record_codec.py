"""The record codec: records round-trip, and arbitrary bytes parse or raise an integrity error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tastypy_fast import PersistentOrderedDictIntegrityError
from tastypy_fast._core.key_codec import decode_key, encode_key
from tastypy_fast._core.record_codec import decode_record, decode_value, encode_record, encode_value, is_encoding_of
from tests.support.json_values import FAST, STANDARD, text, values

keys = st.one_of(text, st.integers(), st.tuples(text, st.integers()))


@given(keys, values, st.booleans())
def test_record_round_trips(key, value, compress):
    codec, payload = encode_value(value)
    record = encode_record(codec, encode_key(key), payload, compress)
    assert decode_record(record) == (codec, encode_key(key), payload)


@given(keys)
def test_record_without_a_value_round_trips(key):
    assert decode_record(encode_record(0, encode_key(key), None)) == (0, encode_key(key), None)


@pytest.mark.parametrize("size", [1, 63, 64, 126, 127, 128, 129, 511, 512, 16_383, 16_384, 100_000])
def test_long_keys_and_values_round_trip(size):
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
def test_arbitrary_bytes_parse_or_raise_an_integrity_error(data):
    try:
        key, _ = read_fully(data)
    except PersistentOrderedDictIntegrityError:
        return
    assert encode_key(key) in data


@pytest.mark.parametrize("codec", [FAST, STANDARD])
def test_value_nested_beyond_the_parser_limit_is_damage(codec):
    # This is written out, because a failing assertion would print all the brackets.
    try:
        decode_value(codec, b"[" * 100_000)
    except PersistentOrderedDictIntegrityError:
        return
    except RecursionError:
        pass
    pytest.fail("the deep value was no damage")


@given(keys, values, st.booleans(), st.data())
def test_damaged_record_parses_or_raises_an_integrity_error(key, value, compress, data):
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
def test_arbitrary_payload_parses_or_raises_an_integrity_error(codec, payload):
    try:
        value = decode_value(codec, payload)
    except PersistentOrderedDictIntegrityError:
        return
    assert codec in (FAST, STANDARD)
    assert repr(decode_value(*encode_value(value))) == repr(value)


@given(values, values)
def test_a_value_matches_no_json_but_its_own(one, other):
    for value in (one, other, [one, other], {"a": one, "b": other}):
        codec, payload = encode_value(value)
        for different in (one, other, [one, other], {"a": one, "b": other}):
            if is_encoding_of(codec, payload, different):
                assert encode_value(different) == (codec, payload)


@pytest.mark.parametrize("value", [
    None, True, False, 0, 7, -7, 10**17, -(10**17), "", "a", "a" * 7, "a" * 8, "a" * 9, "é" * 9, "\x7f" * 8, "日本",
    [], {}, [[]], [{}], {"a": {}}, [1, 2, 3], {"status": 200, "title": "The article", "links": [1, 2], "none": None},
])
def test_an_unchanged_value_matches_its_json(value):
    assert is_encoding_of(*encode_value(value), value)


@pytest.mark.parametrize(("json", "value"), [
    (b'"a"', 'a"'), (b'"a","b"', 'a","b'), (b'["a","b"]', ['a","b']), (b'"abcdefgh\\n"', "abcdefgh\n"),
    (b'"abcdefgh\n"', "abcdefgh\n"), (b'"abcdefghijkl\\"', "abcdefghijkl\\"), (b'"\x1fbcdefgh"', "\x1fbcdefgh"),
    (b"1", True), (b"true", 1), (b"1.0", 1), (b"1", 1.0), (b"01", 1), (b"-0", 0), (b"-1", 1), (b"1", -1), (b"12", 1),
    (b"1", 12), (b"", 0), (b"-", 0), (b"", ""), (b'"', ""), (b"nul", None), (b"nulll", None), (b"[", []), (b"[1", [1]),
    (b"[1,", [1]), (b"[1]", [1, 2]), (b"[1,2]", [1]), (b"[1,2]", (1, 2)), (b"{", {}), (b'{"a"', {"a": 1}),
    (b'{"a":', {"a": 1}), (b'{"a":1', {"a": 1}), (b'{"a":1,"b":2}', {"b": 2, "a": 1}), (b'{"a":1}', {"a": 1, "b": 2}),
    (b'{"1":1}', {1: 1}), (b'"\xed\xa0\x80"', "\ud800"), (b"9223372036854775808", -(2**63)), (b"NaN", float("nan")),
])
def test_another_value_does_not_match(json, value):
    assert not is_encoding_of(FAST, json, value)


@pytest.mark.parametrize("size", range(1, 20))
def test_an_escape_or_a_difference_is_found_at_each_place(size):
    plain = "abcdefghijklmnopqrst"[:size]
    assert is_encoding_of(FAST, b'"%b"' % plain.encode(), plain)
    for place in range(size):
        for character in ("\x00", "\x1f", '"', "\\", "\n"):
            special = plain[:place] + character + plain[place + 1:]
            assert not is_encoding_of(FAST, b'"%b"' % special.encode(), special)
        for character in ("A", " ", "!", "~", "\x7f"):
            special = plain[:place] + character + plain[place + 1:]
            assert is_encoding_of(FAST, b'"%b"' % special.encode(), special)
            assert not is_encoding_of(FAST, b'"%b"' % special.encode(), plain)


def test_values_of_other_codecs_and_deep_values_do_not_match():
    deep = []
    for _ in range(1000):
        deep = [deep]
    assert not is_encoding_of(STANDARD, b"[]", [])
    assert not is_encoding_of(0, None, None)
    assert not is_encoding_of(FAST, b"[" * 1001 + b"]" * 1001, deep)
