"""Hypothesis strategies for keys."""

from __future__ import annotations

from hypothesis import strategies as st

text = st.text(st.characters(exclude_categories=()), max_size=30) | st.text("\x00\x01\xff\ud800\udfff", max_size=6)
powers = st.builds(
    lambda exponent, sign, offset: sign * (2**exponent + offset),
    st.integers(0, 100), st.sampled_from([1, -1]), st.integers(-2, 2),
)
numbers = st.booleans() | st.integers() | powers | st.integers(-(2**600), 2**600)
keys = st.recursive(text | numbers, lambda parts: st.lists(parts, max_size=4).map(tuple), max_leaves=12)


def as_stored(key):
    """The key that is read back: True becomes 1, as in a dict."""
    if isinstance(key, tuple):
        return tuple(as_stored(part) for part in key)
    return int(key) if isinstance(key, bool) else key
