"""Examples of tastypy's documentation: Tracker and SharedTracker."""

from __future__ import annotations

import pytest

from tastypy_fast import POD, DuplicateKeyError, SharedPOD, SharedTracker, Tracker
from tests.support.seeds import output_of, start_methods


@pytest.fixture(params=[Tracker, SharedTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    return request.param


# ProgressTracker

LINKS = {
    "seed": ["a", "b"], "a": ["b", "c", "seed"], "b": [], "c": ["flaky"], "flaky": ["last"], "last": ["never"],
    "never": [],
}


class Web:
    """Pages of which one fails at the first two attempts, and one fails always."""

    def __init__(self):
        self.fetched = []

    def crawl(self, url):
        self.fetched.append(url)
        fails = url == "never" or (url == "flaky" and self.fetched.count("flaky") < 3)
        return not fails, LINKS[url]


def crawl_with_a_pod(web, seed_url):
    url_pod = POD("urls.pod")
    if seed_url not in url_pod:
        url_pod[seed_url] = {"tries": 0, "done": False}

    for url in url_pod:
        # If we've fetched this url already, skip it
        if url_pod[url]["done"]:
            continue

        # If we've tried this url too many times, skip it
        if url_pod[url]["tries"] >= 3:
            continue

        # Record that an attempt is being made to crawl this url
        url_pod[url]["tries"] += 1

        # Attempt to crawl the url, move on if we don't succeed
        success, found_urls = web.crawl(url)
        if not success:
            continue

        # Add the new links we found, and mark this url done
        for found_url in found_urls:
            if found_url not in url_pod:
                url_pod[found_url] = {"tries": 0, "done": False}
        url_pod[url]["done"] = True

    return url_pod


def crawl_with_a_tracker(web, seed_url, cls=Tracker):
    url_tracker = cls("urls.tracker", max_tries=3)
    url_tracker.add_if_absent(seed_url)

    for url in url_tracker.try_keys():
        # Attempt to crawl the url, move on if we don't succeed
        success, found_urls = web.crawl(url)
        if not success:
            continue

        # Add the new links we found, and mark this url done
        url_tracker.add_many_if_absent(found_urls)
        url_tracker.mark_done(url)

    return url_tracker


def crawl_with_a_shared_tracker(web, seed_url):
    return crawl_with_a_tracker(web, seed_url, SharedTracker)


@pytest.mark.parametrize("crawl", [crawl_with_a_pod, crawl_with_a_tracker, crawl_with_a_shared_tracker])
def test_crawl_continues_at_each_start_of_the_program(crawl):
    web = Web()
    runs = []
    for _ in range(7):
        before = len(web.fetched)
        crawl(web, "seed").close()
        runs.append(web.fetched[before:])
    assert runs == [
        ["seed", "a", "b", "c", "flaky"], ["flaky"], ["flaky", "last", "never"], ["never"], ["never"], [], []
    ]


def test_entries_are_dicts_with_three_flags_that_have_defaults():
    tracker = Tracker("my.tracker")
    tracker.add("a")
    assert tracker["a"] == {"_done": False, "_aborted": False, "_tries": 0}
    tracker["a"]["output"] = {"any": ["data"]}
    tracker.close()
    assert Tracker("my.tracker")["a"]["output"] == {"any": ["data"]}


# ProgressTracker reference


def test_max_tries_zero_is_no_limit(tracker_class):
    tracker = tracker_class("my.tracker", init={"a": {"_tries": 1_000_000}})
    assert tracker.should_do("a")
    assert list(tracker.todo_keys()) == ["a"]


def test_update_merges_into_existing_values_and_adds_missing_ones(tracker_class):
    tracker = tracker_class("my.tracker")
    tracker.add("a")
    tracker.increment_tries("a")
    tracker.update({"a": {"x": 1}, "b": {"y": 2}}, c={"_done": True})
    assert tracker.items() == [
        ("a", {"_done": False, "_aborted": False, "_tries": 1, "x": 1}),
        ("b", {"_done": False, "_aborted": False, "_tries": 0, "y": 2}),
        ("c", {"_done": True, "_aborted": False, "_tries": 0}),
    ]


def test_add_tasks(tracker_class):
    tracker = tracker_class("my.tracker")
    tracker.add("a")
    with pytest.raises(DuplicateKeyError):
        tracker.add("a")
    tracker.add_if_absent("a")
    tracker.add_many(["b", "c"])
    tracker.add_many_if_absent(iter(["c", "d"]))
    assert tracker.keys() == ["a", "b", "c", "d"]


def test_change_and_check_the_status_of_tasks(tracker_class):
    tracker = tracker_class("my.tracker", init={"a": {}})
    tracker.mark_done("a")
    assert tracker.done("a")
    tracker.mark_not_done("a")
    assert not tracker.done("a")
    assert tracker.done("no such key") is False
    tracker.increment_tries("a")
    tracker.increment_tries("a")
    assert tracker.tries("a") == 2
    tracker.decrement_tries("a")
    assert tracker.tries("a") == 1
    tracker.reset_tries("a")
    assert tracker.tries("a") == 0
    tracker.abort("a")
    assert tracker.aborted("a")
    tracker.unabort("a")
    assert not tracker.aborted("a")


def test_gates(tracker_class):
    tracker = tracker_class("my.tracker", max_tries=2)
    assert tracker.should_do_add("a")
    assert tracker.should_do("a")
    assert tracker.should_try("a")
    assert tracker.should_try_add("a")
    assert not tracker.should_try("a")
    assert tracker.tries("a") == 2
    assert tracker.should_try_add("b")
    tracker.abort("b")
    assert not tracker.should_do("b")
    assert tracker.should_do("b", allow_aborted=True)
    assert tracker.should_try("b", allow_aborted=True)
    assert not tracker.should_do("b", allow_aborted=True)


def test_iterate_over_tasks_to_be_done(tracker_class):
    tracker = tracker_class("my.tracker", max_tries=2, init=[
        ("done", {"_done": True}), ("aborted", {"_aborted": True}), ("tried", {"_tries": 2}), ("open", {"_tries": 1}),
    ])
    task = {"_done": False, "_aborted": False, "_tries": 1}
    assert list(tracker.todo_keys()) == ["open"]
    assert list(tracker.todo_keys(allow_aborted=True)) == ["aborted", "open"]
    assert list(tracker.todo_values()) == [task]
    assert list(tracker.todo_items()) == [("open", task)]
    assert list(tracker.try_items()) == [("open", {**task, "_tries": 2})]
    assert list(tracker.try_keys()) == list(tracker.try_values()) == []
    assert list(tracker.try_keys(allow_aborted=True)) == ["aborted"]


def test_check_the_status_of_all_tasks(tracker_class):
    tracker = tracker_class("my.tracker", init=(
        (number, {"_done": number < 347, "_aborted": number < 100, "_tries": int(number < 500)})
        for number in range(1000)
    ))
    assert len(tracker) == 1000
    assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == (347, 500, 100)
    assert (tracker.fraction_done(), tracker.fraction_tried(), tracker.fraction_aborted()) == (0.347, 0.5, 0.1)
    assert (tracker.percent_done(), tracker.percent_not_done()) == ("34.70 %", "65.30 %")
    assert (tracker.percent_tried(0), tracker.percent_not_tried(1)) == ("50 %", "50.0 %")
    assert (tracker.percent_aborted(decimals=3), tracker.percent_not_aborted()) == ("10.000 %", "90.00 %")


# Multiprocessing with SharedProgressTrackers


CRAWLERS = """
from multiprocessing import get_context
from tastypy_fast import SharedTracker

LINKS = {1: [2, 3], **{n: [2 * n, 2 * n + 1] for n in range(2, 50)}}

def crawl(url_tracker):
    for url in url_tracker.try_keys():
        url_tracker.add_many_if_absent(LINKS.get(url, []))
        url_tracker.set[url]['links'] = LINKS.get(url, [])
        url_tracker.mark_done(url)

if __name__ == '__main__':
    tracker = SharedTracker('urls.tracker', max_tries=3, init={1: {}})
    procs = [get_context(METHOD).Process(target=crawl, args=(tracker,)) for _ in range(3)]
    for proc in procs:
        proc.start()
    for proc in procs:
        proc.join()
    # A worker that started when no task was left has exited.
    crawl(tracker)
    print(len(tracker), tracker.num_done(), tracker.percent_done(), max(map(tracker.tries, tracker)))
    print(sum(len(task['links']) for task in tracker.values()))
"""


@start_methods
def test_one_tracker_is_distributed_to_several_processes(tmp_path, method):
    assert output_of(tmp_path, CRAWLERS, method) == "99 99 100.00 % 1\n98\n"


def test_data_of_a_task_is_changed_through_set():
    tracker = SharedTracker("my.tracker", init={"a": {}})
    tracker.set["a"]["output"] = {"any": ["data"]}
    tracker["a"]["output"]["any"].append("lost")
    tracker.close()
    assert SharedTracker("my.tracker")["a"]["output"] == {"any": ["data"]}


def test_shared_tracker_supports_all_methods_of_both():
    methods = {name for cls in (Tracker, SharedPOD) for name in dir(cls) if not name.startswith("_")}
    assert methods - {"mode"} <= set(dir(SharedTracker))
