"""Failures that are alike but for numbers and names are one line to read."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.insight import MOST_GROUPS, MOST_TEXT, Folded, fold


def said(*messages):
    return [(f"s{number}", text) for number, text in enumerate(messages)]


@pytest.mark.parametrize(
    "messages",
    [
        ("ret is -8020", "ret is -8021", "ret is 7"),
        ("The agent on host-001 is lost.", "The agent on host-17b is lost."),
        ("device 0 is busy", "device  12 is  busy\n"),
        (
            "task 0f0e9d1a-4b8e-4e60-9e3c-2b1a0f9e8d7c failed",
            "task 11111111-2222-4333-8444-555555555555 failed",
        ),
        ("commit deadbeefdeadbeef", "commit DEADBEEF", "commit 0123abcd"),
        ("no bucket 'logs'", "no bucket 'my other logs'"),
        ('no bucket "a"', 'no bucket "b c"'),
        ("no bucket `a`", "no bucket `b`"),
        ("没有“甲”", "没有“乙”"),
        ("10.0.0.1:443 refused", "10.0.0.22:8443 refused"),
        ("设备3忙", "设备12忙"),
        ("", None),
    ],
)
def test_alike(messages):
    (group,) = fold(said(*messages))
    assert group.count == len(messages)
    assert group.message == (messages[0] or "")


@pytest.mark.parametrize(
    "messages",
    [
        ("disk full", "disk lost"),
        ("No space left on /var", "No space left on /home"),
        ("it can't start", "it can't stop"),
        ("设备3忙", "设备3坏了"),
        ("device 3 is busy", "device is busy"),
        ("accede", "decade"),  # too short for hex
        ("a", ""),
    ],
)
def test_not_alike(messages):
    assert len(fold(said(*messages))) == len(messages)


def test_the_commonest_form_stands_for_its_group_and_the_largest_comes_first():
    groups = fold(said("lost", "ret 1", "ret 2", "ret 2", "busy"))
    assert groups == [
        Folded("ret 2", 3, ("s1", "s2", "s3")),
        Folded("lost", 1, ("s0",)),
        Folded("busy", 1, ("s4",)),
    ]


def test_the_first_five_servers_are_named_each_once():
    names = ["a", "b", "a", None, "c", "d", "e", "f"]
    (group,) = fold((name, "ret 1") for name in names)
    assert group.servers == ("a", "b", "c", "d", "e")
    assert group.count == 8


def test_it_is_bounded():
    letters = [f"{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)]
    assert len(fold(said(*letters))) == MOST_GROUPS
    long = "x" * MOST_TEXT
    assert len(fold(said(f"{long} one", f"{long} two"))) == 1


@pytest.mark.parametrize("text", ["a" * 10**5, "'" * 10**5, "a-" * 10**5, "'a" * 10**5])
def test_no_text_takes_long(text):
    began = time.process_time()
    fold(said(*(text + chr(97 + number) for number in range(20))))
    assert time.process_time() - began < 0.5


texts = st.none() | st.text(max_size=30) | st.from_regex(r"[a-f0-9 '\"]{0,20}")
pairs = st.lists(st.tuples(st.none() | st.sampled_from("abcdefgh"), texts), max_size=30)


@given(pairs)
def test_each_message_is_in_one_group_whose_message_was_said(messages):
    groups = fold(messages)
    assert sum(group.count for group in groups) == len(messages)
    assert {group.message for group in groups} <= {text or "" for _, text in messages}
    assert [g.count for g in groups] == sorted((g.count for g in groups), reverse=True)
    for group in groups:
        assert len(set(group.servers)) == len(group.servers) <= 5


@given(pairs, st.randoms(use_true_random=False))
def test_the_groups_do_not_depend_on_the_order(messages, draw):
    other = list(messages)
    draw.shuffle(other)
    counts = [sorted(group.count for group in fold(m)) for m in (messages, other)]
    assert counts[0] == counts[1]


@given(pairs, st.integers(0, 10**9))
def test_a_number_makes_no_difference(messages, number):
    twice = [(name, f"{text or ''} {number}") for name, text in messages]
    thrice = [(name, f"{text or ''} {number + 1}") for name, text in messages]
    assert len(fold(twice + thrice)) == len(fold(twice))


def test_of_very_much_text_the_beginnings_are_told_apart():
    """However much is said, what it takes to fold it has an end."""
    end = " ".join("x" * 400)
    messages = said(*(f"disk {n} lost {end}{n}" for n in range(2000)), "no power")
    began = time.process_time()
    groups = fold(messages)
    assert time.process_time() - began < 0.3
    assert [group.count for group in groups] == [2000, 1]
