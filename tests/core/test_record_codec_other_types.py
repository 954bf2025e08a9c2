"""Values of numpy, pandas and the standard library: each is stored as a number or list, or is refused."""

from __future__ import annotations

import importlib

import pytest

from tastypy_fast import UnstorableValueError
from tastypy_fast._core.record_codec import decode_value, encode_value
from tests.support.stores import CLASSES, changing, is_tracker, value_for

# Values of numpy, pandas and the standard library, and the stored value of each, or ... if it is refused.
# They are text, because some of the packages may not be installed.
OTHER_VALUES = {
    # dates, whose unit a number would lose
    **dict.fromkeys([f"numpy.timedelta64(3, {unit!r})" for unit in ("Y", "D", "s", "us", "ns")], ...),
    **dict.fromkeys([f"numpy.datetime64(3, {unit!r})" for unit in ("Y", "D", "s", "us", "ns")], ...),
    "numpy.timedelta64(3)": ...,
    "numpy.timedelta64('NaT')": ...,
    "numpy.datetime64('NaT')": ...,
    **dict.fromkeys([f"numpy.array({shape}, {kind!r})" for shape in ("1", "[]", "[1, 2]", "[[1], [2]]")
                     for kind in ("m8[ns]", "M8[ns]", "m8[D]", "M8[us]", "m8", ">m8[s]")], ...),
    "numpy.array([1, 2, 3], 'M8[ns]')[::2]": ...,
    "numpy.array([numpy.timedelta64(1, 'ns')], object)": ...,
    "numpy.array([[1, {'a': numpy.datetime64(1, 'ns')}]], object)": ...,
    "numpy.array(numpy.datetime64(1, 'ns'), object)": ...,
    "numpy.ma.array([1, 2], 'M8[ns]', mask=[0, 1])": ...,
    "numpy.ma.array([1, 2], 'm8[ns]')": ...,
    "numpy.array([1], 'm8[ns]').view(type('Mine', (numpy.ndarray,), {}))": ...,
    # records, whose names a list would lose
    "numpy.array([(1, 2)], [('a', int), ('b', 'M8[ns]')])": ...,
    "numpy.array([(1, 2)], [('a', int), ('b', 'M8[ns]')])[0]": ...,
    "numpy.array([(1, 2.5)], [('a', int), ('b', float)])": ...,
    "numpy.array([(1, 2.5)], [('a', int), ('b', float)])[0]": ...,
    "numpy.zeros(2, [('x', 'm8[ns]', (2,))])": ...,
    "numpy.rec.array([(1, 2)], dtype=[('a', int), ('b', int)])": ...,
    "numpy.void(b'abc')": ...,
    "numpy.array([b'abc'], 'V3')": ...,
    "numpy.array((1, 2), [('a', int), ('b', int)])": ...,
    # numbers of every size
    "numpy.float16(1.1)": 1.099609375,
    "numpy.array([1.1], 'float16')": [1.099609375],
    "numpy.array([0.5], '>f4')": [0.5],
    "numpy.int8(-128)": -128,
    "numpy.uint64(2**64 - 1)": 2**64 - 1,
    "numpy.array([2**64 - 1], 'u8')": [2**64 - 1],
    "numpy.array([1, -2], '>i8')": [1, -2],
    "numpy.longlong(5)": 5,
    "numpy.bool_(False)": False,
    "numpy.array([2**80, None, 'x', [1], {'a': (2,)}], object)": [2**80, None, "x", [1], {"a": [2]}],
    "numpy.array({'a': numpy.int8(1)}, object)": {"a": 1},
    "[numpy.array(numpy.array(5))]": [5],
    "numpy.longdouble(1) / 3": ...,
    "numpy.array([1], 'longdouble') / 3": ...,
    "numpy.complex64(1)": ...,
    "numpy.array([1 + 2j])": ...,
    "numpy.clongdouble(1)": ...,
    # text and bytes
    "numpy.str_('s')": "s",
    "numpy.array(['a', 'bc'])": ["a", "bc"],
    "numpy.array('a')": "a",
    "numpy.bytes_(b'x')": ...,
    "numpy.array([b'x'])": ...,
    "numpy.array([b'x'], object)": ...,
    "numpy.array([object()])": ...,
    # arrays that are not contiguous, and arrays of other classes
    "numpy.arange(12).reshape(3, 4)[::-2, ::3].T": [[8, 0], [11, 3]],
    "numpy.broadcast_to(numpy.int8(1), (2, 2))": [[1, 1]] * 2,
    "numpy.ma.array([1, 2, 3], mask=[0, 1, 0])": [1, None, 3],
    "numpy.ma.masked": None,
    "numpy.ma.array([[0.5]], mask=True)": [[None]],
    "numpy.arange(2).flat": ...,
    "numpy.dtype(int)": ...,
    # keys
    "{numpy.str_('k'): 1}": {"k": 1},
    "{numpy.float64(1.5): 1}": {"1.5": 1},
    "{numpy.int64(1): 2}": ...,
    "{numpy.bool_(True): 2}": ...,
    "{numpy.timedelta64(1, 'ns'): 2}": ...,
    "{numpy.datetime64(1, 'ns'): 2}": ...,
    "{10**5000: 1}": ...,
    # pandas
    "pandas.Timestamp(0)": ...,
    "pandas.Timestamp.min": ...,
    "pandas.NaT": ...,
    "pandas.Timedelta(1)": ...,
    "pandas.NA": ...,
    "pandas.Period('2020')": ...,
    "pandas.Interval(0, 1)": ...,
    "pandas.Series([1])": ...,
    "pandas.Index([1])": ...,
    "pandas.array([1])": ...,
    "pandas.Categorical(['a'])": ...,
    "pandas.DataFrame({'a': [1]})": ...,
    "pandas.Series(pandas.to_datetime(['2020-01-01'])).to_numpy()": ...,
    "pandas.Series([1, 2]).to_numpy()": [1, 2],
    # the standard library
    "decimal.Decimal('1.5')": ...,
    "fractions.Fraction(1, 2)": ...,
    "datetime.datetime.min": ...,
    "datetime.timedelta(1)": ...,
    "array.array('i', [1])": ...,
    "ctypes.c_int(1)": ...,
}


def value_of(text):
    """The value that a line of the table describes; None if the package is not installed."""
    modules = ("array", "ctypes", "datetime", "decimal", "fractions", "numpy", "pandas")
    try:
        return eval(text, {name: importlib.import_module(name) for name in modules if f"{name}." in text})
    except ImportError:
        return pytest.skip("the package is not installed")


@pytest.mark.parametrize("text", OTHER_VALUES)
def test_value_is_stored_unchanged_or_refused(text):
    value, expected = value_of(text), OTHER_VALUES[text]
    for wrapped, stored, place in (
        (value, expected, r"\$"), ([0, value], [0, expected], r"\$\[1\]"),
        ({"x": (value,)}, {"x": [expected]}, r"\.x\[0\]"),
    ):
        if expected is ...:
            with pytest.raises(UnstorableValueError, match=place):
                encode_value(wrapped)
        else:
            assert repr(decode_value(*encode_value(wrapped))) == repr(stored)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_refuses_the_same_values(name, path):
    pytest.importorskip("numpy")
    pytest.importorskip("pandas")
    cls = CLASSES[name]
    good = {text: expected for text, expected in OTHER_VALUES.items() if expected is not ...}
    with cls(path, init={"a": value_for(cls, [])}) as store:
        store.sync()
        for text in OTHER_VALUES.keys() - good.keys():
            bad = value_for(cls, [value_of(text)])
            for use in (store.__setitem__, store.set.__setitem__, store.setdefault):
                with pytest.raises(UnstorableValueError, match=r"\[0\]"):
                    use("new", bad)
            with pytest.raises(UnstorableValueError, match=r"\[0\]"):
                store.update(new=bad)
        assert store.items() == [("a", store["a"])]
        assert store.dirty() == set()
        for text in good:
            store[text] = value_for(cls, value_of(text))
    with cls(path, mode="r") if not name.startswith("shared") else cls(path) as store:
        found = {key: value["value"] if is_tracker(cls) else value for key, value in store.items()}
    assert repr(found) == repr({"a": [], **good})


@pytest.mark.parametrize("name", CLASSES)
def test_unstorable_values_added_to_a_stored_list_are_refused(name, path):
    numpy = pytest.importorskip("numpy")
    cls = CLASSES[name]
    with cls(path, init={"a": value_for(cls, [])}) as store:
        store.sync()
        parts = changing(store)["a"]["value"] if is_tracker(cls) else changing(store)["a"]

        def change():
            parts.append(numpy.timedelta64(1, "ns"))
            store.sync()

        with pytest.raises(UnstorableValueError, match=r"timedelta64.*\[0\]"):
            change()
        store.revert()
        assert store["a"] == ({**store["a"], "value": []} if is_tracker(cls) else [])
