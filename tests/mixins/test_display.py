"""How a store displays itself: ``repr()``, and a small table in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from tastypy_fast import POD, ProgressTracker, SharedPOD, SharedProgressTracker
from tastypy_fast._inspect.statuses import STATUSES

CLASSES = [POD, ProgressTracker, SharedPOD, SharedProgressTracker]
TRACKERS = [ProgressTracker, SharedProgressTracker]


class Table(HTMLParser):
    """The texts of a piece of HTML, and the attributes of its bar. All elements must be closed."""

    def __init__(self, html):
        super().__init__()
        self.open = []
        self.texts = []
        self.bar = {}
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert tag in ("div", "p", "code", "table", "tr", "th", "td", "progress")
        self.open.append(tag)
        if tag == "progress":
            self.bar = dict(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def rows(self):
        """The number and the percentage after each word."""
        return {name: tuple(self.texts[at + 1:at + 3]) for at, name in enumerate(self.texts)
                if name in (*STATUSES, "tasks")}


@pytest.mark.parametrize("cls", CLASSES)
def test_repr_shows_class_path_and_number_of_keys(path, cls):
    noun = "task" if cls in TRACKERS else "key"
    with cls(path) as store:
        assert repr(store) == f"<{cls.__name__} at '{path}': 0 {noun}s>"
        store["a"] = {"x": 1}
        assert f"'{path}': 1 {noun}" in repr(store)
        assert f"1 {noun}s" not in repr(store)
        store.update({1: {}, (2, "x"): {}})
        assert f"'{path}': 3 {noun}s" in repr(store)
        assert repr(store) == str(store)
    assert repr(store) == f"<{cls.__name__} at '{path}': closed>"


@pytest.mark.parametrize("cls", TRACKERS)
def test_repr_of_a_tracker_shows_its_progress(path, cls):
    with cls(path) as tracker:
        tracker.update({"a": {"_done": True}, "b": {"_aborted": True}, "c": {}, "d": {"_tries": 1}})
        assert repr(tracker).endswith(": 4 tasks: 1 new, 1 to retry, 1 aborted, 1 done>")


def test_repr_of_a_subclass_has_its_name(path):
    class Crawl(SharedProgressTracker):
        pass

    with Crawl(path, init={"a": {}}) as crawl:
        assert repr(crawl) == f"<Crawl at '{path}': 1 task: 1 new>"
        assert "Crawl" in Table(crawl._repr_html_()).texts[0]


def test_repr_of_a_tracker_with_an_invalid_status_does_not_raise(path):
    with ProgressTracker(path, init={"a": {}}) as tracker:
        tracker["a"]["_done"] = "x"
        assert "cannot be counted (UnstorableValueError" in repr(tracker)
        assert "cannot be counted (UnstorableValueError" in "".join(Table(tracker._repr_html_()).texts)
        tracker["a"]["_done"] = True
        assert "1 task: 1 done" in repr(tracker)


@pytest.mark.parametrize("cls", TRACKERS)
def test_html_is_a_table_with_a_bar(path, cls):
    with cls(path, max_tries=2) as tracker:
        tracker.update({
            **{number: {"_done": True} for number in range(1200)},
            "a": {"_aborted": True}, "t": {"_tries": 2}, "x": {}, "y": {"_tries": 1},
        })
        table = Table(tracker._repr_html_())
        assert table.rows == {
            "new": ("1", "0.08 %"), "running": ("0", "0.00 %"), "to retry": ("1", "0.08 %"),
            "failed": ("1", "0.08 %"), "aborted": ("1", "0.08 %"), "done": ("1,200", "99.67 %"),
            "tasks": ("1,204", "100.00 %"),
        }
        assert table.bar == {"value": "1202", "max": "1204", "style": "width: 100%"}
        tracker.clear()
        assert Table(tracker._repr_html_()).rows["tasks"] == ("0", "0.00 %")
    table = Table(tracker._repr_html_())
    assert "closed" in "".join(table.texts)
    assert not table.rows


@pytest.mark.parametrize("name", [
    "<script>alert(1)</script>", "a&b", 'x"y\'z', "line\nbreak", b"\xff".decode("utf-8", "surrogateescape"),
])
@pytest.mark.parametrize("closed", [False, True])
def test_html_is_escaped(tmp_path, name, closed):
    folder = tmp_path
    for part in name.split("/"):
        folder = folder / part
    tracker = ProgressTracker(folder, init={"a": {}})
    if closed:
        tracker.close()
    html = tracker._repr_html_()
    html.encode()
    assert repr(tracker.path) in Table(html).texts
    repr(tracker).encode()
    tracker.close()


def test_plain_stores_have_no_table():
    assert not hasattr(POD, "_repr_html_")
    assert not hasattr(SharedPOD, "_repr_html_")
