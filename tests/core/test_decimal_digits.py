"""Integers of very many digits, converted in small pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastypy_fast._core import decimal_digits
from tests.support.large_input import digits_allowed


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(0, 9), st.sampled_from(["", "-"]), st.randoms(use_true_random=False))
def test_ints_of_any_size_round_trip_as_text(count, first, sign, rng):
    digits = str(first) + "".join(rng.choices("0123456789", k=count - 1))
    with digits_allowed(0):
        number = int(sign + digits)
        text = str(number)
    with digits_allowed(640):
        assert decimal_digits.int_of(sign + digits) == number
        assert decimal_digits.digits_of(number) == text


EDGES = ["1" + "0" * 99_999, "9" * 100_000, "-" + "9" * 12_345, "0", "-1", "5" * 500, "5" * 501]


@pytest.mark.parametrize("text", EDGES, ids=range(len(EDGES)))
def test_ints_at_piece_boundaries_round_trip_as_text(text):
    number = decimal_digits.int_of(text)
    assert decimal_digits.digits_of(number) == text
    assert abs(number) % 1000 == int(text[-3:].lstrip("-"))
    assert (number < 0) == text.startswith("-")


def test_conversion_never_processes_a_large_piece_at_once(monkeypatch):
    lengths = []

    def recorded(text):
        lengths.append(len(text))
        return int(text)

    monkeypatch.setattr(decimal_digits, "int", recorded, raising=False)
    decimal_digits.int_of("7" * 100_000)
    assert sum(lengths) == 100_000
    assert max(lengths) <= 500
