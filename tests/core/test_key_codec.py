"""The key codec: any key round-trips, and encoded keys are equal only if the keys are."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tastypy_fast import InvalidKeyError, PersistentOrderedDictIntegrityError
from tastypy_fast._core.key_codec import decode_key, encode_key, index_key
from tests.support.keys import as_stored, keys, numbers

# LMDB's limit for a key.
LONGEST_INDEX_KEY = 511


@given(keys)
@example("")
@example(())
@example(-(2**63))
@example(-(2**63) - 1)
@example(2**63)
@example(("a\x00", "b"))
@example(((), ((),)))
def test_key_round_trips_with_its_type(key):
    back = decode_key(encode_key(key))
    assert back == key
    # repr() distinguishes 1 from True, also in nested tuples.
    assert repr(back) == repr(as_stored(key))


@given(keys, keys)
@example("a", ("a",))
@example(("a", "b"), ("a\x00b",))
@example(("a", "b"), (("a", "b"),))
@example((("a",), "b"), ("a", ("b",)))
@example(("",), ())
@example((1, 2), (1, (2,)))
@example(True, 1)
@example((False,), (0,))
@example("1", 1)
@example(("\x00",), ("", ""))
@example(("\x00\xff",), ("\x00", "\xff"))
def test_encoded_keys_are_equal_only_if_the_keys_are(one, other):
    assert (encode_key(one) == encode_key(other)) == (one == other)


@given(st.lists(keys, unique=True))
def test_different_keys_have_different_index_keys(some):
    # As elements of tuples, their encodings are similar.
    some = [*some, *{(key,) for key in some if (key,) not in some}]
    assert len({index_key(encode_key(key)) for key in some}) == len(some)


@given(st.lists(numbers))
def test_encoded_ints_sort_like_ints(some):
    assert sorted(some) == sorted(some, key=encode_key)


@given(keys, st.integers(0, 900))
def test_index_key_is_the_encoded_key_if_that_fits(key, size):
    encoded = encode_key((key, "x" * size))
    index = index_key(encoded)
    assert 1 <= len(index) <= LONGEST_INDEX_KEY
    if len(encoded) <= LONGEST_INDEX_KEY:
        assert index == encoded
    else:
        assert index != encoded
        with pytest.raises(PersistentOrderedDictIntegrityError):
            decode_key(index)


@pytest.mark.parametrize("size", range(505, 516))
def test_index_key_becomes_a_digest_beyond_the_size_limit(size):
    same_start = [index_key(encode_key("x" * size + end)) for end in ("a", "b", "ab")]
    assert len(set(same_start)) == 3
    assert all(len(index) <= LONGEST_INDEX_KEY for index in same_start)


def test_nesting_limit_applies_to_encoding_and_decoding():
    key = deepest = ()
    while True:
        key = (key,)
        try:
            encoded = encode_key(key)
        except InvalidKeyError:
            break
        deepest = key
    assert decode_key(encode_key(deepest)) == deepest
    with pytest.raises(PersistentOrderedDictIntegrityError):
        decode_key(b"\x05" + encoded + b"\x00")


@pytest.mark.parametrize("key", [
    1.0, None, b"x", bytearray(b"x"), [], {}, set(), 1j, Ellipsis, int, (1, 2.5), ((None,),), ("a", ["b"]),
], ids=repr)
def test_other_types_are_refused_by_name(key):
    with pytest.raises(InvalidKeyError) as caught:
        encode_key(key)
    innermost = key
    while isinstance(innermost, tuple):
        innermost = innermost[-1]
    assert type(innermost).__name__ in str(caught.value)


def test_long_repr_of_a_bad_key_is_shortened():
    with pytest.raises(InvalidKeyError) as caught:
        encode_key([1] * 10_000)
    assert len(str(caught.value)) < 300


def damaged(draw_from):
    """Encodings with one byte changed, removed or inserted."""

    def change(data, at, byte, how):
        at %= len(data)
        return {"set": data[:at] + bytes([byte]) + data[at + 1:], "cut": data[:at], "drop": data[:at] + data[at + 1:],
                "insert": data[:at] + bytes([byte]) + data[at:], "append": data + bytes([byte])}[how]

    return st.builds(change, draw_from, st.integers(0, 1000), st.integers(0, 255),
                     st.sampled_from(["set", "cut", "drop", "insert", "append"]))


@given(st.binary(max_size=40) | damaged(keys.map(encode_key)) | st.binary(max_size=20).map(b"\x05".__add__))
@example(b"")
@example(b"\x05")
@example(b"\x05" * 10_000)
@example(b"\x02\xff")
@example(b"\x02\xed\xa0")
@example(b"\x05\x02a")
@example(b"\x14\x14")
@example(b"\x15\x00")
@example(b"\x13\xff")
@example(b"\x0c" + b"\x00" * 8)
@example(b"\x1c" + b"\xff" * 8)
@example(b"\x1d\xff\xff\xff\xff")
@example(b"\x1d\x00\x00\x00\x01\x05")
@example(b"\x0b\x00\x00\x00\x00")
@example(b"\x0b\xff\xff\xff\xff")
@example(b"\x0b\xff\xff\xff\xfe\x05")
@example(b"\x1f" + b"x" * 96)
def test_arbitrary_bytes_decode_to_a_key_or_raise_an_integrity_error(data):
    try:
        key = decode_key(data)
    except PersistentOrderedDictIntegrityError:
        return
    # Each key has exactly one encoding. So bytes that parse are bytes that encode_key() can write.
    assert encode_key(key) == data
