"""Trackers as tables: ``to_arrow()``, ``to_pandas()``, ``to_polars()``."""

from __future__ import annotations

import itertools
import json
import math
import sys
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastypy_fast import (
    POD,
    PersistentOrderedDictException,
    ProgressTracker,
    SharedPOD,
    SharedProgressTracker,
    UnstorableValueError,
)
from tastypy_fast._core import record_codec
from tastypy_fast._mixins import dataframes
from tastypy_fast.types import TaskStatus

arrow = pytest.importorskip("pyarrow")

FRESH = {"done": False, "aborted": False, "tries": 0}


@pytest.fixture(params=[ProgressTracker, SharedProgressTracker], ids=["tracker", "shared_tracker"])
def make(request, path):
    stores = []

    def make(pairs=(), **options):
        stores.append(request.param(path, **options))
        stores[-1].update(pairs)
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture(params=[2, 10_000], ids=["batches of 2", "one batch"])
def batch(request, monkeypatch):
    monkeypatch.setattr(dataframes, "BATCH", request.param)
    return request.param


DATA = {
    "a": {"_done": True, "_tries": 1, "size": 1, "name": "x"},
    "b": {"_aborted": True, "size": 2.5},
    "c": {"_tries": -3, "links": ["p", "q"], "deep": {"n": 1}},
    "d": {"size": None, "deep": {"m": [1.5]}},
    "e": {},
}
ROWS = [
    {"key": "a", "done": True, "aborted": False, "tries": 1, "size": 1, "name": "x", "links": None, "deep": None},
    {"key": "b", "done": False, "aborted": True, "tries": 0, "size": 2.5, "name": None, "links": None, "deep": None},
    {"key": "c", "done": False, "aborted": False, "tries": -3, "size": None, "name": None, "links": ["p", "q"],
     "deep": {"n": 1, "m": None}},
    {"key": "d", **FRESH, "size": None, "name": None, "links": None, "deep": {"n": None, "m": [1.5]}},
    {"key": "e", **FRESH, "size": None, "name": None, "links": None, "deep": None},
]


def test_arrow_has_a_row_for_each_task_and_a_column_for_each_field(make, batch):
    table = make(DATA).to_arrow()
    assert isinstance(table, arrow.Table)
    assert table.column_names == ["key", "done", "aborted", "tries", "size", "name", "links", "deep"]
    assert table.to_pylist() == ROWS
    assert table.schema.types[:5] == [arrow.string(), arrow.bool_(), arrow.bool_(), arrow.int64(), arrow.float64()]


def test_pandas_has_the_same_values_as_arrow(make, batch):
    pandas = pytest.importorskip("pandas")
    big = 2**53 + 1
    frame = make({**DATA, "f": {"big": big}, "g": {"flag": True}}).to_pandas()
    assert list(frame.columns[:4]) == ["key", "done", "aborted", "tries"]
    assert list(frame["key"]) == list("abcdefg")
    assert frame["done"].sum() == 1
    assert frame["tries"].tolist() == [1, 0, -3, 0, 0, 0, 0]
    assert frame["big"][5] == big
    assert frame["big"].dtype == pandas.Int64Dtype()
    assert frame["flag"].isna().tolist() == [True] * 6 + [False]
    assert frame["size"].sum() == 3.5
    assert frame.query("done")["name"].tolist() == ["x"]
    assert frame["deep"][2] == {"n": 1, "m": None}


# Values of one field, and the values in the pandas column. They are equal, except for names from dicts of other tasks.
NESTED = {
    "dict without the name": ([{"n": 1}, {}], [{"n": 1}, {"n": None}]),
    "dict with None": ([{"n": 2**53 + 1}, {"n": None}, None], ...),
    "list with None": ([[1, None], [2**53 + 1], [], None], ...),
    "list of lists": ([[[1], [None]], [[]], None], ...),
    "list of dicts": ([[{"n": 1}, {}], []], [[{"n": 1}, {"n": None}], []]),
    "deep": ([{"x": {"y": [1, None]}}, {"x": {}}], [{"x": {"y": [1, None]}}, {"x": {"y": None}}]),
    "bools": ([[True, None], [False]], ...),
    "text": ([["a", None], ["b"]], ...),
    "floats": ([[0.5, None], [math.inf]], ...),
    "ints among floats": ([{"n": 1}, {"n": 0.5}], [{"n": 1.0}, {"n": 0.5}]),
}


@pytest.mark.parametrize("case", NESTED)
def test_nested_values_keep_their_types(make, batch, case):
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    values, expected = NESTED[case]
    expected = values if expected is ... else expected
    tracker = make([(number, {"first": number, "x": value, "last": "z"}) for number, value in enumerate(values)])
    assert repr(tracker.to_arrow()["x"].to_pylist()) == repr(expected)
    assert repr(tracker.to_polars()["x"].to_list()) == repr(expected)
    frame = tracker.to_pandas()
    assert repr(list(frame["x"])) == repr(expected)
    assert frame.columns.tolist() == ["key", "done", "aborted", "tries", "first", "x", "last"]
    assert frame["first"].tolist() == list(range(len(values)))
    assert frame.index.tolist() == list(range(len(values)))


def test_top_level_values_keep_their_types(make, batch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("polars")
    columns = {"int": [2**53 + 1, None, 2**63 - 1], "bool": [True, None, False], "none": [None] * 3,
               "float": [0.5, None, 1.5], "text": ["a", None, "b"]}
    tracker = make([(number, {name: values[number] for name, values in columns.items()}) for number in range(3)])
    arrow_table, frame, polars_frame = tracker.to_arrow(), tracker.to_pandas(), tracker.to_polars()
    for name, values in columns.items():
        assert arrow_table[name].to_pylist() == polars_frame[name].to_list() == values
        assert [None if pandas.isna(value) else value for value in frame[name]] == values
    assert frame["int"].dtype == pandas.Int64Dtype()
    assert frame["bool"].dtype == pandas.BooleanDtype()


def test_nested_columns_have_arrow_types_on_request(make):
    pandas = pytest.importorskip("pandas")
    tracker = make({"a": {"x": {"n": 1}, "y": [1]}, "b": {"x": {}, "y": [None]}})
    frame = tracker.to_pandas(types_mapper=pandas.ArrowDtype)
    assert all(isinstance(frame[name].dtype, pandas.ArrowDtype) for name in "xy")
    frame = tracker.to_pandas(types_mapper=None)
    assert frame["x"][0] == {"n": 1}
    assert frame["tries"].dtype == "int64"


def test_to_pandas_accepts_the_options_of_to_arrow(make):
    pandas = pytest.importorskip("pandas")
    frame = make(DATA).to_pandas(types_mapper=pandas.ArrowDtype)
    assert isinstance(frame["size"].dtype, pandas.ArrowDtype)


def test_polars_has_the_same_values_as_arrow(make, batch):
    polars = pytest.importorskip("polars")
    frame = make(DATA).to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame.to_dicts() == ROWS


def test_empty_tracker_is_a_table_with_the_four_columns(make):
    tracker = make()
    table = tracker.to_arrow()
    assert table.schema == arrow.schema(
        {"key": arrow.string(), "done": arrow.bool_(), "aborted": arrow.bool_(), "tries": arrow.int64()}
    )
    assert len(table) == 0
    pytest.importorskip("pandas")
    assert list(tracker.to_pandas().columns) == table.column_names
    pytest.importorskip("polars")
    assert tracker.to_polars().columns == table.column_names


def test_table_has_unsynced_tasks_and_no_deleted_ones(make):
    tracker = make({"a": {}, "b": {}, "c": {"x": 1}})
    tracker.sync()
    tracker.mark_done("a")
    tracker.set["c"]["x"] = 2
    del tracker["b"]
    assert tracker.to_arrow().to_pydict() == {
        "key": ["a", "c"], "done": [True, False], "aborted": [False] * 2, "tries": [0, 0], "x": [None, 2],
    }


def test_making_a_table_changes_nothing(make):
    tracker = make(DATA)
    tracker.sync()
    before = tracker.items()
    tracker.to_arrow(as_json=["size", "deep"])
    assert tracker.items() == before
    assert tracker.dirty() == set()


def test_read_only_tracker_gives_a_table(path):
    ProgressTracker(path, init=DATA).close()
    with ProgressTracker(path, mode="r") as reader:
        assert reader.to_arrow().to_pylist() == ROWS


# Chosen columns


COLUMNS = ["key", "done", "aborted", "tries", "size", "name", "links", "deep"]


@pytest.mark.parametrize("columns", [
    COLUMNS, ["size"], ["deep", "key"], ["tries"], ["key"], ["done", "aborted"], ["links", "key"], [],
], ids=str)
def test_chosen_columns_are_those_of_the_whole_table(make, batch, columns):
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    tracker = make(DATA)
    table = tracker.to_arrow(columns=columns)
    assert table.column_names == columns
    expected = {name: [row[name] for row in ROWS] for name in columns}
    assert table.to_pydict() == expected
    whole = tracker.to_arrow()
    assert all(table[name].type == whole[name].type for name in columns)
    frame = tracker.to_pandas(columns=columns)
    assert list(frame.columns) == columns
    assert len(frame) == (5 if columns else 0)
    assert tracker.to_polars(columns=columns).to_dict(as_series=False) == expected


NAMES_OF_FIELDS = [
    {"key": "k", "done": 1, "tries": "t", "data.done": 2, "_key": 3}, {"key": 1, "data.key": 2, "data.data.key": 3},
    {"data.key": 2}, {"data.x": 1, "x": 2, "data.": 3},
]


@pytest.mark.parametrize("data", NAMES_OF_FIELDS)
def test_each_column_has_the_same_values_alone(make, data):
    tracker = make({"a": data})
    (row,) = tracker.to_arrow().to_pylist()
    for name, value in row.items():
        assert tracker.to_arrow(columns=[name]).to_pylist() == [{name: value}]


def test_columns_that_were_not_chosen_are_not_built(make, batch, monkeypatch):
    built = set()

    class Watched:
        """pyarrow that notes from which fields and keys arrays are made."""

        def __getattr__(self, name):
            return getattr(arrow, name)

        def array(self, values, *arguments):
            for value in values:
                built.update(value if isinstance(value, dict) else ["key"])
            return arrow.array(values, *arguments)

    tracker = make(DATA)
    monkeypatch.setattr(dataframes, "optional_import", lambda *names: Watched())
    cases = {("size",): {"size"}, ("key", "done"): {"key", "_done"}, ("deep",): {"deep"}, (): set()}
    for columns, expected in cases.items():
        built.clear()
        tracker.to_arrow(columns=columns)
        assert built == expected


@pytest.mark.parametrize("name", ["status", "nowhere", "data.size", "data.key"])
def test_column_that_no_row_has_is_refused(make, batch, name):
    tracker = make(DATA)
    for convert in (tracker.to_arrow, tracker.to_pandas, tracker.to_polars):
        with pytest.raises(ValueError, match=f"there is no column '{name}'") as caught:
            convert(columns=["key", name])
        assert str(caught.value).endswith(", ".join(map(repr, COLUMNS)))


def test_column_of_other_rows_is_refused_unless_there_is_no_row(make):
    tracker = make({"a": {"_done": True, "size": 1}, "b": {"error": "x"}})
    assert tracker.to_arrow(columns=["size"]).to_pydict() == {"size": [1, None]}
    with pytest.raises(ValueError, match=r"no column 'size', .* are 'key', 'done', 'aborted', 'tries', 'error'$"):
        tracker.to_arrow(columns=["size"], status="new")
    assert tracker.to_arrow(columns=["size", "nowhere"], status="aborted").to_pydict() == {"size": [], "nowhere": []}


def test_error_for_a_column_names_few_others(make):
    with pytest.raises(ValueError, match=r"'tries', '0', .*, '15' and 84 more$"):
        make({"a": {str(number): 1 for number in range(100)}}).to_arrow(columns=["100"])


@pytest.fixture
def decoded(monkeypatch):
    """The values that are decoded. Only values that orjson cannot decode are noted."""
    found = []
    decode = record_codec.decode_standard

    def note(payload):
        found.append(decode(payload))
        return found[-1]

    monkeypatch.setattr(record_codec, "decode_standard", note)
    return found


def test_data_that_are_not_needed_are_not_decoded(make, decoded):
    tracker = make([(number, {"size": math.inf, "_done": number < 2}) for number in range(10)])
    tracker.sync()
    decoded.clear()
    for columns in (["key", "done", "aborted", "tries"], ["done"], []):
        tracker.to_arrow(columns=columns)
        tracker.to_arrow(columns=columns, status="new")
    assert decoded == []
    tracker.to_arrow(status="done")
    assert len(decoded) == 2
    decoded.clear()
    tracker.to_arrow(status=["new", "failed"], columns=["size"])
    assert len(decoded) == 8


def test_column_that_one_type_cannot_hold_disturbs_no_other(make, batch):
    tracker = make([(number, {"good": number, "bad": value}) for number, value in enumerate([1, "x", [1]])])
    assert tracker.to_arrow(columns=["good"]).to_pydict() == {"good": [0, 1, 2]}
    with pytest.raises(UnstorableValueError, match="'bad'"):
        tracker.to_arrow(columns=["bad"])
    table = tracker.to_arrow(columns=["bad"], as_json=["bad", "good"])
    assert table.to_pydict() == {"bad": ["1", '"x"', "[1]"]}


def test_arguments_may_be_iterators(make):
    """A table without columns was returned, because the second use of an iterator finds nothing."""
    tracker = make({"a": {"n": 1, "m": [2]}, "b": {"_done": True, "n": 3}})
    table = tracker.to_arrow(columns=(name for name in ("n", "m")), status=iter(["new"]), as_json=iter(["n", "m"]))
    assert table.to_pydict() == {"n": ["1"], "m": ["[2]"]}
    for convert in (tracker.to_pandas, tracker.to_polars):
        assert list(convert(columns=iter(("key", "n"))).columns) == ["key", "n"]
    with pytest.raises(ValueError, match="there is no column 'x'"):
        tracker.to_arrow(columns=iter(["x"]))


@pytest.mark.parametrize("columns", [1, "n"])
def test_as_json_that_is_no_collection_is_refused(make, columns):
    with pytest.raises(TypeError, match="as_json must be a collection of names"):
        make({"a": {"n": 1}}).to_arrow(as_json=columns)


@pytest.mark.parametrize(("columns", "error"), [("key", TypeError), (["key", 1], TypeError), (["_done"], ValueError),
                                                (1, TypeError)])
def test_wrong_columns_are_refused(make, columns, error):
    with pytest.raises(error, match="column"):
        make(DATA).to_arrow(columns=columns)


# Chosen rows


STATUSES = {
    "new": {}, "new again": {"_tries": -1}, "retry": {"_tries": 1}, "failed": {"_tries": 2}, "more": {"_tries": 5},
    "aborted": {"_aborted": True, "_tries": 1}, "both": {"_aborted": True, "_done": True}, "done": {"_done": True},
    "running": {},
}
BY_STATUS = {
    "new": ["new", "new again"], "running": ["running"], "to retry": ["retry"], "failed": ["failed", "more"],
    "aborted": ["aborted"], "done": ["both", "done"],
}


@pytest.fixture
def of_each_status(make, batch):
    tracker = make({name: {**task, "n": math.nan} for name, task in STATUSES.items()}, max_tries=2)
    assert tracker.should_try("running")
    return tracker


@pytest.mark.parametrize("synced", [False, True])
def test_tasks_with_one_status(of_each_status, synced):
    if synced:
        of_each_status.sync()
    assert list(BY_STATUS) == list(get_args(TaskStatus))
    for status, expected in BY_STATUS.items():
        for columns in (None, ["key"], ["key", "n"]):
            assert of_each_status.to_arrow(status=status, columns=columns)["key"].to_pylist() == expected


def test_each_set_of_statuses_gives_the_tasks_with_one_of_them(of_each_status):
    everything = of_each_status.to_arrow()
    for size in range(7):
        for statuses in itertools.combinations(BY_STATUS, size):
            expected = [name for name in STATUSES if any(name in BY_STATUS[status] for status in statuses)]
            table = of_each_status.to_arrow(status=statuses)
            assert table["key"].to_pylist() == expected
    assert repr(table.to_pylist()) == repr(everything.to_pylist())


@pytest.mark.parametrize("status", ["done", "aborted", "new", "to retry"])
@pytest.mark.parametrize("synced", [False, True])
def test_blocks_of_tasks_with_one_status(make, status, synced):
    task = {"done": {"_done": True}, "aborted": {"_aborted": True}, "new": {}, "to retry": {"_tries": 1}}[status]
    tracker = make([(number, task) for number in range(1500)])
    if synced:
        tracker.sync()
    for name in BY_STATUS:
        assert tracker.to_arrow(status=name).num_rows == (1500 if name == status else 0)
        assert tracker.to_arrow(status=[name, "done"]).num_rows == (1500 if status in (name, "done") else 0)
    assert tracker.to_arrow(columns=["tries"]).num_rows == 1500


def test_without_a_limit_no_task_is_failed(make):
    tracker = make(STATUSES)
    assert tracker.to_arrow(status="failed").num_rows == 0
    assert tracker.to_arrow(status="to retry")["key"].to_pylist() == ["retry", "failed", "more"]
    assert tracker.to_arrow(status="running", columns=["n"]).to_pydict() == {"n": []}


def test_status_that_was_set_in_a_watched_dict_counts(path):
    with ProgressTracker(path, init={"a": {"x": 1}, "b": {}}) as tracker:
        tracker.sync()
        task = tracker["a"]
        task["_done"] = True
        task["x"] = 2
        row = {"key": "a", "done": True, "aborted": False, "tries": 0, "x": 2}
        assert tracker.to_arrow(status="done").to_pylist() == [row]
        assert tracker.to_arrow(status="new", columns=["key"]).to_pylist() == [{"key": "b"}]


def test_choosing_rows_changes_nothing(of_each_status):
    of_each_status.sync()
    before = repr(of_each_status.items())
    of_each_status.to_arrow(status=["new", "done"])
    of_each_status.to_arrow(status="to retry", columns=["done"])
    assert repr(of_each_status.items()) == before
    assert of_each_status.dirty() == set()


def test_running_tasks_of_a_loop(make):
    tracker = make({key: {} for key in "abc"})
    loop = tracker.try_keys()
    assert [next(loop), next(loop)] == ["a", "b"]
    assert tracker.to_arrow(status="running")["key"].to_pylist() == ["b"]
    assert tracker.to_arrow(status="to retry")["key"].to_pylist() == ["a"]
    tracker.mark_done("b")
    assert tracker.to_arrow(status="running").num_rows == 0


def test_reader_chooses_rows(path):
    ProgressTracker(path, init=STATUSES).close()
    with ProgressTracker(path, 2, mode="r") as reader:
        assert reader.to_arrow(status="failed", columns=["key"]).to_pydict() == {"key": ["failed", "more"]}


@pytest.mark.parametrize(("status", "error"), [
    ("finished", ValueError), (["done", "to-retry"], ValueError), ([1], TypeError), (1, TypeError),
])
def test_wrong_status_is_refused(make, status, error):
    with pytest.raises(error):
        make().to_arrow(status=status)


# Keys


@pytest.mark.parametrize(("keys", "kind"), [
    (["a", "", "tab\t\n", "ü", "x" * 700, "\0"], arrow.string()),
    ([1, -1, 2**63 - 1, -(2**63), 0], arrow.int64()),
])
def test_keys_of_one_type_are_stored_unchanged(make, batch, keys, kind):
    column = make([(key, {}) for key in keys]).to_arrow()["key"]
    assert column.type == kind
    assert column.to_pylist() == keys


@pytest.mark.parametrize("keys", [
    ["a", "b", 1], [1, 2, "1"], [("a", 1), ("b", (2,)), ()], ["a", ("a",), 5], [1, 2, 3, 2**63], [2**200],
    ["a", "b", "\ud800"], ["", 0, (0, "\udfff\ud800")], [1, 2, "a", "b", 3, 4],
], ids=ascii)
def test_other_keys_are_json(make, batch, keys):
    column = make([(key, {}) for key in keys]).to_arrow()["key"]
    assert column.type == arrow.string()
    assert [from_json(text) for text in column.to_pylist()] == keys


def from_json(text):
    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return tuples(json.loads(text))


# Fields


def test_field_with_the_name_of_a_column_is_renamed(make, batch):
    table = make({"a": {"key": "k", "done": 1, "tries": "t", "data.done": 2, "_key": 3}}).to_arrow()
    assert table.to_pylist() == [{
        "key": "a", **FRESH, "data.key": "k", "data.data.done": 1, "data.tries": "t", "data.done": 2, "_key": 3,
    }]


MIXED = {
    "text and number": [1, 2, "x"],
    "number and text": ["x", "y", 1],
    "bool and number": [True, False, 1],
    "list and number": [[1], [2], 3],
    "dict and list": [{"a": 1}, {"a": 2}, [1]],
    "inside dicts": [{"a": 1}, {"a": 2}, {"a": "x"}],
    "inside lists": [[1], [2], ["x"]],
    "inside one list": [[1, "x"]],
    "beyond 64 bits": [1, 2, 2**64],
    "int that no float has": [2**53 + 1, 0, 2.5],
    "lone surrogate": ["x", "y", "\ud800"],
    "surrogate in a name": [{"\ud800": 1}],
}


@pytest.mark.parametrize("values", MIXED.values(), ids=MIXED)
def test_error_names_the_field_that_one_column_cannot_hold(make, batch, values):
    pairs = [(("key", number), {"good": number, "bad \n": value, "fine": "x"}) for number, value in enumerate(values)]
    tracker = make(pairs)
    with pytest.raises(UnstorableValueError, match=r"'bad \\n'.*as_json=\['bad \\n'\]") as caught:
        tracker.to_arrow()
    assert isinstance(caught.value, PersistentOrderedDictException)
    assert isinstance(caught.value, ValueError)
    assert "'good'" not in str(caught.value)
    assert "\n" not in str(caught.value)
    table = tracker.to_arrow(as_json=["bad \n"])
    assert [json.loads(text) for text in table["bad \n"].to_pylist()] == values
    assert table["good"].to_pylist() == list(range(len(values)))


def test_error_names_the_field_whose_name_is_not_text(make):
    with pytest.raises(UnstorableValueError, match=r"\\ud800"):
        make({"a": {"\ud800": 1}}).to_arrow()


def test_column_of_ints_and_floats_has_floats(make, batch):
    column = make({"a": {"x": 1}, "b": {}, "c": {"x": 0.5}, "d": {"x": math.inf}}).to_arrow()["x"]
    assert column.to_pylist() == [1.0, None, 0.5, math.inf]


def test_json_is_null_only_where_the_field_is_missing(make):
    column = make({"a": {"x": None}, "b": {}, "c": {"x": {"ü": "\ud800"}}}).to_arrow(as_json={"x"})["x"]
    assert column.to_pylist() == ["null", None, '{"\\u00fc": "\\ud800"}']


def test_as_json_refuses_a_single_string(make):
    with pytest.raises(TypeError, match="as_json"):
        make().to_arrow(as_json="size")


def test_field_missing_in_earlier_tasks_is_null_there(make, monkeypatch):
    monkeypatch.setattr(dataframes, "BATCH", 100)
    tracker = make([(number, {"x": 1} if number == 999 else {}) for number in range(1000)])
    table = tracker.to_arrow()
    assert table["x"].null_count == 999
    assert table["x"][999].as_py() == 1
    assert table["key"].to_pylist() == list(range(1000))


def test_empty_dicts_and_lists_become_columns(make, batch):
    tracker = make({"a": {"x": {}, "y": []}, "b": {"x": {}, "y": []}, "c": {}})
    assert tracker.to_arrow().select(["x", "y"]).to_pylist() == [{"x": {}, "y": []}] * 2 + [{"x": None, "y": None}]
    pytest.importorskip("pandas")
    assert len(tracker.to_pandas()) == 3
    pytest.importorskip("polars")
    assert len(tracker.to_polars()) == 3


def test_batch_that_is_too_large_is_halved(make, monkeypatch):
    class Small:
        """pyarrow with room for three tasks in an array."""

        def __getattr__(self, name):
            return getattr(arrow, name)

        def array(self, values, *arguments):
            if len(values) > 3 and isinstance(values[0], dict):
                raise arrow.ArrowCapacityError("too large")
            return arrow.array(values, *arguments)

    tracker = make([(number, {"x": number}) for number in range(20)])
    table = dataframes.table_of(Small(), tracker.iteritems(), ())
    assert table["x"].to_pylist() == table["key"].to_pylist() == list(range(20))
    assert table["x"].num_chunks == 8


SCALARS = {
    "text": st.text(), "int": st.integers(-(2**63), 2**63 - 1), "float": st.floats(allow_nan=False),
    "bool": st.booleans(), "texts": st.lists(st.text(), max_size=3),
    "key": st.integers(0, 9), "done": st.text(max_size=3), "none": st.none(),
}
# A value of a column may be any of the fields, or missing.
TASKS = st.fixed_dictionaries(
    {"_done": st.booleans(), "_aborted": st.booleans(), "_tries": st.integers(-5, 5)}, optional=SCALARS,
)
KEYS = st.text() | st.integers() | st.tuples(st.text(), st.integers())


@settings(max_examples=60)
@given(tasks=st.dictionaries(KEYS, TASKS, max_size=9), size=st.integers(1, 5))
def test_table_agrees_with_the_tracker(tmp_path_factory, tasks, size):
    with pytest.MonkeyPatch.context() as patch, ProgressTracker(tmp_path_factory.mktemp("store") / "store") as tracker:
        patch.setattr(dataframes, "BATCH", size)
        tracker.update(tasks)
        rows = tracker.to_arrow().to_pylist()
    keys = [row.pop("key") for row in rows]
    if not (all(isinstance(key, str) for key in tasks) or all(isinstance(key, int) for key in tasks)) or any(
        isinstance(key, int) and not -(2**63) <= key < 2**63 for key in tasks
    ):
        keys = list(map(from_json, keys))
    assert keys == list(tasks)
    renamed = {"_done": "done", "_aborted": "aborted", "_tries": "tries", "key": "data.key", "done": "data.done"}
    for row, task in zip(rows, tasks.values(), strict=True):
        expected = {renamed.get(name, name): value for name, value in task.items()}
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in expected.items() if value is not None
        }


# Missing packages


@pytest.mark.parametrize(("method", "missing"), [
    ("to_arrow", "pyarrow"), ("to_pandas", "pyarrow"), ("to_pandas", "pandas"), ("to_polars", "pyarrow"),
    ("to_polars", "polars"),
])
def test_without_the_package_the_error_names_the_extra(make, monkeypatch, method, missing):
    tracker = make({"a": {}})
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}.*pip install 'tastypy_fast\[frames\]'") as caught:
        getattr(tracker, method)()
    assert caught.value.name == missing


def test_dict_stores_have_no_table_methods():
    for name in ("to_arrow", "to_pandas", "to_polars"):
        assert not hasattr(POD, name)
        assert not hasattr(SharedPOD, name)
