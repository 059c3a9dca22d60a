"""The line before the worker: order, places, refusals, and work that ends when nobody waits."""

from __future__ import annotations

import threading
import time

import pytest

from flowsteer.app.desk import Desk, LineFull, Waiting


@pytest.fixture
def desk():
    made = Desk(most_waiting=2)
    yield made
    made.close()


class Blocker:
    """Work that waits until it is let go or told to stop."""

    def __init__(self):
        self.begun, self.go, self.stopped = threading.Event(), threading.Event(), False

    def __call__(self, post, should_stop):
        self.begun.set()
        post("begun")
        while not self.go.is_set() and not should_stop():
            time.sleep(0.01)
        self.stopped = should_stop()


def start(desk, work, should_stop=lambda: False):
    """Consume in a thread; the list of what came, and the thread."""
    news = []

    def consume():
        try:
            for item in desk.do(work, should_stop):
                news.append(item)
        except Exception as error:
            news.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    return news, thread


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_is_done_in_order_and_each_knows_its_place(desk):
    first, order = Blocker(), []
    _, one = start(desk, first)
    first.begun.wait()
    second_news, two = start(desk, lambda post, stop: order.append(2))
    wait_until(lambda: second_news)
    third_news, three = start(desk, lambda post, stop: order.append(3))
    wait_until(lambda: third_news)
    assert second_news == [Waiting(1)] and third_news == [Waiting(2)]
    first.go.set()
    for thread in (one, two, three):
        thread.join()
    assert order == [2, 3]


def test_a_full_line_refuses_with_a_reason_and_goes_on(desk):
    first = Blocker()
    _, one = start(desk, first)
    first.begun.wait()
    waiting = [start(desk, lambda post, stop: post("done")) for _ in range(2)]
    wait_until(lambda: all(news for news, _ in waiting))
    with pytest.raises(LineFull, match="the line is full: 2 requests are waiting; try again"):
        next(desk.do(lambda post, stop: None))
    first.go.set()
    for news, thread in (*waiting, ([], one)):
        thread.join()
        assert not news or news[-1] == "done"
    assert list(desk.do(lambda post, stop: post("again"))) == ["again"]


def test_who_stops_waiting_leaves_the_line_and_others_move_up(desk):
    first, given_up, done = Blocker(), threading.Event(), []
    _, one = start(desk, first)
    first.begun.wait()
    news, two = start(desk, lambda post, stop: done.append(2), given_up.is_set)
    wait_until(lambda: news)
    later, three = start(desk, lambda post, stop: done.append(3))
    wait_until(lambda: later)
    given_up.set()
    two.join()
    wait_until(lambda: later[-1] == Waiting(1))
    first.go.set()
    one.join()
    three.join()
    assert done == [3]


def test_an_iterator_that_is_dropped_ends_its_work(desk):
    work = Blocker()
    running = desk.do(work)
    assert next(running) == "begun"
    running.close()
    wait_until(lambda: work.stopped)
    assert list(desk.do(lambda post, stop: post(1))) == [1]


def test_an_error_is_raised_where_it_was_asked_for_and_the_next_works(desk):
    def fails(post, stop):
        post("before")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(desk.do(fails))
    assert list(desk.do(lambda post, stop: post("fine"))) == ["fine"]


def test_only_the_latest_of_piled_up_news_is_kept(desk):
    last = list(desk.do(lambda post, stop: [post(i) for i in range(1000)]))
    assert last[-1] == 999 and last == sorted(last)


def test_closing_ends_what_runs_and_what_waits():
    desk, work = Desk(), Blocker()
    _, one = start(desk, work)
    work.begun.wait()
    done = []
    news, two = start(desk, lambda post, stop: done.append(1))
    wait_until(lambda: news)
    desk.close()
    one.join()
    two.join()
    assert work.stopped and done == []
    with pytest.raises(LineFull, match="closing"):
        next(desk.do(work))
