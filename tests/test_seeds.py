"""Every example of the original's documentation, ported to Python 3 and run as written otherwise.

The headings are those of the documentation.
"""

from __future__ import annotations

import inspect
import multiprocessing
import threading

import pytest

import tastypy_fast
from tastypy_fast import POD, DuplicateKeyError, SharedPOD, SharedTracker, Tracker
from tests.children import run


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """The examples use relative paths."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=[Tracker, SharedTracker], ids=["tracker", "shared_tracker"])
def tracker_class(request):
    return request.param


# PersistentOrderedDict


def test_aliases():
    assert tastypy_fast.POD is tastypy_fast.PersistentOrderedDict
    assert tastypy_fast.Tracker is tastypy_fast.ProgressTracker
    assert issubclass(tastypy_fast.ProgressTracker, tastypy_fast.PersistentOrderedDict)
    assert tastypy_fast.SharedPOD is tastypy_fast.SharedPersistentOrderedDict
    assert tastypy_fast.SharedTracker is tastypy_fast.SharedProgressTracker
    assert issubclass(tastypy_fast.SharedProgressTracker, tastypy_fast.SharedPersistentOrderedDict)


FIRST_PROGRAM = """
from tastypy_fast import POD
my_pod = POD('path/to/my.pod')
my_pod['foo'] = 'bar'
exit()
"""

SECOND_PROGRAM = """
from tastypy_fast import POD
my_pod = POD('path/to/my.pod')
print(my_pod['foo'])
"""


def test_data_is_preserved_after_the_program_exits(run_python):
    run_python(FIRST_PROGRAM)
    assert run_python(SECOND_PROGRAM) == "bar\n"


# JSON - general, simple, secure


def test_integer_keys_of_dicts_become_strings():
    my_pod = POD("my.pod")
    my_pod[1] = {1: 1}
    my_pod.sync()
    my_pod.revert()  # do a serialize/deserialize cycle
    assert my_pod[1] == {"1": 1}


def test_list_likes_become_lists_and_dict_likes_dicts():
    from collections import OrderedDict

    my_pod = POD("my.pod")
    my_pod["key"] = (1, OrderedDict(a=(2,)))
    my_pod.sync()
    my_pod.revert()
    assert my_pod["key"] == [1, {"a": [2]}]
    assert type(my_pod["key"][1]) is dict


# Synchronization


def test_changes_made_by_keying_are_synchronized():
    my_pod = POD("my.pod")
    my_pod["key"] = []
    my_pod["key"].append(42)  # GOOD! This will be sync'd!
    my_pod.close()
    assert POD("my.pod")["key"] == [42]


def test_synchronizing_happens_at_1000_changed_values_by_default():
    my_pod = POD("my.pod")
    for number in range(999):
        my_pod[number] = None
    assert len(my_pod.dirty()) == 999
    my_pod[999] = None
    assert my_pod.dirty() == set()
    assert tastypy_fast.DEFAULT_SYNC_AT == tastypy_fast.DEFAULT_FILE_SIZE == 1000


# Can data be lost?


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_dirty_values_are_synchronized_when_the_program_ends(run_python, end):
    run_python(f"from tastypy_fast import POD\nmy_pod = POD('my.pod')\nmy_pod['a'] = []\nmy_pod['a'].append(1)\n{end}")
    assert POD("my.pod")["a"] == [1]


# Can I manually control synchronization?


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_manual_control(cls):
    pod = cls("my.pod", sync_at=2)
    pod.hold()
    pod.update(a=[1], b=[2], c=[3])
    assert pod.dirty() == {"a", "b", "c"}
    pod.sync_key("a")
    assert pod.dirty() == {"b", "c"}
    pod.sync()
    assert pod.dirty() == set()
    pod.mark_dirty("b")
    assert pod.dirty() == {"b"}
    pod["a"] = "changed"
    pod["d"] = "new"
    pod.revert()
    assert pod.items() == [("a", [1]), ("b", [2]), ("c", [3])]
    pod.update(a=1, b=2)
    assert pod.dirty() == {"a", "b"}
    pod.unhold()
    assert pod.dirty() == set()


# Opening multiple PODs at same location is safe


def test_pods_open_to_the_same_location_reference_the_same_data():
    one, other = POD("my.pod"), POD("./my.pod")
    one["a"] = [1]
    other["a"].append(2)
    other["b"] = 1
    assert one["a"] == [1, 2]
    assert one.keys() == ["a", "b"]


def test_clone_false_has_isolated_memory():
    one, other = POD("my.pod"), POD("my.pod", clone=False)
    one["a"] = 1
    assert "a" not in other


# PersistentOrderedDict reference


def test_signatures_are_the_documented_ones_with_more_behind():
    def documented(call):
        return [(name, parameter.default) for name, parameter in inspect.signature(call).parameters.items()
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    common = [("init", {}), ("gzipped", False), ("file_size", 1000), ("sync_at", 1000)]
    assert documented(POD) == [("path", inspect.Parameter.empty), *common, ("clone", True)]
    assert documented(Tracker) == [("path", inspect.Parameter.empty), ("max_tries", 0), *common, ("clone", True)]
    assert documented(SharedPOD) == [("path", inspect.Parameter.empty), *common]
    assert documented(SharedTracker) == [("path", inspect.Parameter.empty), ("max_tries", 0), *common]
    for cls in (Tracker, SharedTracker):
        for method in ("should_do", "should_do_add", "should_try", "should_try_add"):
            assert documented(getattr(cls, method))[1:] == [
                ("key", inspect.Parameter.empty), ("allow_aborted", False)
            ]
        for method in ("todo_items", "todo_keys", "todo_values", "try_items", "try_keys", "try_values"):
            assert documented(getattr(cls, method))[1:] == [("allow_aborted", False)]
        for what in ("done", "not_done", "tried", "not_tried", "aborted", "not_aborted"):
            assert documented(getattr(cls, f"percent_{what}"))[1:] == [("decimals", 2)]


@pytest.mark.parametrize("name", [
    "update", "iteritems", "iterkeys", "itervalues", "items", "keys", "values", "mark_dirty", "dirty", "sync_key",
    "sync", "hold", "unhold", "revert",
])
def test_pod_has(name):
    assert callable(getattr(POD, name))


def test_init_is_equivalent_to_update():
    class Implementing:
        def iteritems(self):
            return iter([("b", 2), ("a", 1)])

    assert POD("1.pod", init=Implementing()).items() == [("b", 2), ("a", 1)]
    assert POD("2.pod", init=[("b", 2), ("a", 1)]).items() == [("b", 2), ("a", 1)]
    assert POD("2.pod", init=iter([("a", 3)])).items() == [("b", 2), ("a", 3)]


def test_arguments_of_update_closer_to_the_right_take_precedence():
    pod = POD("my.pod")
    pod.update([("a", 1), ("b", 1), ("c", 1)], {"b": 2, "c": 2}, c=3)
    assert pod.items() == [("a", 1), ("b", 2), ("c", 3)]


def test_iterating_yields_keys_in_the_order_in_which_they_were_added():
    pod = POD("my.pod")
    for key in ("z", "a", "m"):
        pod[key] = key.upper()
    pod["z"] = "again"
    assert list(pod) == list(pod.iterkeys()) == pod.keys() == ["z", "a", "m"]
    assert list(pod.itervalues()) == pod.values() == ["again", "A", "M"]
    assert list(pod.iteritems()) == pod.items() == [("z", "again"), ("a", "A"), ("m", "M")]
    assert isinstance(pod.items(), list)
    assert iter(pod.iteritems())


# Writing to shared SharedPODs


@pytest.mark.parametrize("cls", [SharedPOD, POD])
def test_set_accepts_all_mutable_operations(cls):
    """.set exists on the private classes too."""
    shared_pod = cls("my.pod")
    shared_pod.set["foo"] = {"bar": 4, "baz": []}
    shared_pod.set["foo"]["bar"] += 1
    shared_pod.set["foo"]["baz"].append("fizz")
    assert shared_pod["foo"]["baz"][0] == "fizz"
    assert "DeepProxy" in repr(shared_pod.set["foo"]["baz"][0])
    shared_pod.set["a"] = [1, 2]
    shared_pod.set["a"][:] = [4]
    shared_pod.set["a"] += [1]
    shared_pod.set["some-dict"] = {"some-key": 1}
    del shared_pod.set["some-dict"]["some-key"]
    shared_pod.set["some-key"] = 1
    shared_pod.set["some-key"] += 42
    shared_pod.set["some"] = {"key": 0, "list": []}
    shared_pod.set["some"]["key"] += 42
    shared_pod.set["some"]["list"].append("forty-two")
    shared_pod.close()
    assert dict(cls("my.pod")) == {
        "foo": {"bar": 5, "baz": ["fizz"]}, "a": [4, 1], "some-dict": {}, "some-key": 43,
        "some": {"key": 42, "list": ["forty-two"]},
    }


def test_what_is_read_and_changed_without_set_is_not_in_the_shared_pod():
    shared_pod = SharedPOD("my.pod")
    shared_pod["foo"] = {"bar": 0, "baz": []}
    shared_pod["foo"]["bar"] += 1
    shared_pod["foo"]["baz"].append("fizz")
    assert shared_pod["foo"] == {"bar": 0, "baz": []}


# Avoiding raciness


RACERS = """
from multiprocessing import get_context
from tastypy_fast import SharedPOD

def work(shared_pod):
    for _ in range(100):
        with shared_pod.locked():
            shared_pod.set['some-key'] += 1
        shared_pod.lock()
        shared_pod.set['some-key'] = shared_pod['some-key'] + 1
        shared_pod.unlock()
        # Any of the methods defined on values is atomic, and so is += on a list.
        shared_pod.set['some-list'].append('item')
        shared_pod.set['I-store-a-list'] += [1]
        del shared_pod.set['some-dict'][shared_pod.set['some-keys'].pop()]

if __name__ == '__main__':
    keys = [str(number) for number in range(400)]
    pod = SharedPOD('my.pod', init={
        'some-key': 0, 'some-list': [], 'I-store-a-list': [], 'some-dict': dict.fromkeys(keys), 'some-keys': keys,
    })
    procs = [get_context(METHOD).Process(target=work, args=(pod,)) for _ in range(4)]
    for proc in procs:
        proc.start()
    for proc in procs:
        proc.join()
        assert proc.exitcode == 0
    print(pod['some-key'], len(pod['some-list']), len(pod['I-store-a-list']), pod['some-dict'], pod['some-keys'])
"""

EXAMPLE = """
from multiprocessing import get_context
import tastypy_fast

def work(pod, proc_num, num_procs):
    for i in pod:
        if i%num_procs == proc_num:
            pod.set[i] = i**2

def run_multiproc():
    num_procs = 5
    init = [(i, None) for i in range(25)]
    pod = tastypy_fast.SharedPOD('my.pod', init=init)
    procs = []
    for i in range(num_procs):
        proc = get_context(METHOD).Process(target=work, args=(pod, i, num_procs))
        proc.start()
        procs.append(proc)

    for proc in procs:
        proc.join()

    for key, val in pod.iteritems():
        print(key, val)

if __name__ == '__main__':
    run_multiproc()
"""

start_methods = pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())


def output_of(tmp_path, program, method):
    """What a program prints whose children have been started in this way."""
    path = tmp_path / "example.py"
    path.write_text(program.replace("METHOD", repr(method)))
    status, output, errors = run(path)
    assert status == 0, errors
    return output


@start_methods
def test_locked_operations_of_many_processes_lose_nothing(tmp_path, method):
    assert output_of(tmp_path, RACERS, method) == "800 400 400 {} []\n"


# SharedPOD multiprocessing example


@start_methods
def test_each_worker_works_on_its_own_subset(tmp_path, method):
    assert output_of(tmp_path, EXAMPLE, method) == "".join(f"{number} {number**2}\n" for number in range(25))


# SharedPersistentOrderedDict reference


@pytest.mark.parametrize("name", [
    "close", "locked", "lock", "unlock", "update", "mark_dirty", "sync", "sync_key", "hold", "unhold", "revert",
    "iteritems", "iterkeys", "itervalues", "items", "keys", "values", "dirty",
])
def test_shared_pod_has(name):
    assert callable(getattr(SharedPOD, name))


def test_locked_is_released_when_an_exception_is_thrown_or_a_return_statement_reached():
    pod = SharedPOD("my.pod", init={"some-key": 0})

    def work():
        with pod.locked():
            pod.set["some-key"] += 1
            return

    def fail():
        with pod.locked():
            pod.set["some-key"] += 1
            raise ZeroDivisionError

    work()
    with pytest.raises(ZeroDivisionError):
        fail()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert pod["some-key"] == 3


# ProgressTracker

LINKS = {
    "seed": ["a", "b"], "a": ["b", "c", "seed"], "b": [], "c": ["flaky"], "flaky": ["last"], "last": ["never"],
    "never": [],
}


class Web:
    """Pages of which one fails at the first two attempts, and one always."""

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
def test_crawl_goes_on_where_it_was_each_time_the_program_is_started(crawl):
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


def test_update_mixes_into_existing_values_and_adds_missing_ones(tracker_class):
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
    # (a worker that came when there was nothing to do has gone again)
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
