from __future__ import annotations

from flowsteer.app.turns import Latest, Turns


def test_a_newer_request_makes_the_older_out_of_date():
    turns = Turns()
    assert not turns.has_begun("a")
    first = turns.begin("a")
    assert turns.has_begun("a") and not turns.has_begun("b")
    assert turns.is_current("a", first)
    second = turns.begin("a")
    assert not turns.is_current("a", first)
    assert turns.is_current("a", second)


def test_visitors_do_not_disturb_each_other():
    turns = Turns()
    mine, yours = turns.begin("a"), turns.begin("b")
    turns.stop("a")
    assert turns.is_current("a", mine) and turns.is_current("b", yours)
    assert turns.is_stopped("a") and not turns.is_stopped("b")


def test_stop_holds_until_the_next_request():
    turns = Turns()
    turns.begin("a")
    turns.stop("a")
    assert turns.is_stopped("a")
    turns.begin("a")
    assert not turns.is_stopped("a")


def test_who_has_left_has_no_current_request():
    turns = Turns()
    number = turns.begin("a")
    turns.stop("a")
    turns.forget("a")
    assert not turns.is_current("a", number)
    assert not turns.is_stopped("a")
    turns.stop("a")  # too late to matter
    assert not turns.is_stopped("a")


def test_only_the_latest_visitors_are_remembered():
    turns = Turns(max_visitors=3)
    numbers = {name: turns.begin(name) for name in "abcd"}
    assert not turns.is_current("a", numbers["a"])
    assert all(turns.is_current(name, numbers[name]) for name in "bcd")


def test_a_value_is_kept_for_the_latest_visitors_and_taken_once():
    latest = Latest(2)
    for visitor in "abc":
        latest.put(visitor, visitor.upper())
    latest.put("b", "again")
    latest.put("d", "D")
    assert [latest.take(visitor) for visitor in "abcd"] == [None, "again", None, "D"]
    assert latest.take("d") is None
