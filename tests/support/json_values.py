"""Hypothesis strategies for JSON values."""

from __future__ import annotations

from hypothesis import strategies as st

FAST, STANDARD = 1, 2

text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | text
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -0.0, 0.0, 1.0, 1, True])
)
values = st.recursive(
    scalars, lambda parts: st.lists(parts, max_size=5) | st.dictionaries(text, parts, max_size=5), max_leaves=25
)
