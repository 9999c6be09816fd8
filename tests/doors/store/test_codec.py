"""Loading what was saved gives it back equal, field order included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.errors import Reason
from watcher.core.model import (
    Absence,
    Item,
    Job,
    JobKey,
    JobRecord,
    Lasted,
    Level,
    Phase,
    PollFailed,
    Task,
    Tick,
    Transition,
)
from watcher.store.codec import (
    EARLIEST,
    LARGEST,
    LATEST,
    Unreadable,
    decode_record,
    decode_transition,
    encode,
)

text = st.text(max_size=8)
maybe_text = st.none() | text
moment = st.floats(EARLIEST, LATEST)
maybe_moment = st.none() | moment
count = st.integers(-(2**63), 2**63 - 1)

keys = st.builds(JobKey, text, text)
tasks = st.builds(
    Task,
    text,
    text,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_moment,
    maybe_moment,
)
jobs = st.builds(
    Job,
    id=text,
    status=maybe_text,
    abnormal_count=st.none() | count,
    name=maybe_text,
    description=maybe_text,
    created_at=maybe_moment,
    updated_at=maybe_moment,
    items=st.lists(
        st.builds(Item, maybe_text, st.dictionaries(text, text, max_size=2)), max_size=2
    ).map(tuple),
)
failures = st.builds(
    PollFailed, st.sampled_from(Reason), st.none() | count, maybe_text, maybe_text
)
lasted = st.builds(Lasted, moment, moment, st.builds(Tick, moment, moment))
records = st.builds(
    JobRecord,
    keys,
    project_id=maybe_text,
    phase=st.sampled_from(Phase),
    job=st.none() | jobs,
    tasks=st.lists(tasks, max_size=3).map(tuple),
    absences=st.dictionaries(text, st.builds(Absence, count, moment), max_size=2),
    first_seen_at=maybe_moment,
    finished_at=maybe_moment,
    lagging=st.none() | lasted,
    missing_answers=count,
    missing=st.none() | lasted,
    moves=count,
    failure=st.none() | failures,
    flagged=st.frozensets(text, max_size=3),
    ordinals=st.dictionaries(text, st.integers(0, LARGEST), max_size=3),
)
values = st.recursive(
    st.none() | st.booleans() | count | moment | text,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2)
    ),
    max_leaves=5,
)
transitions = st.builds(
    Transition,
    text,
    text,
    st.sampled_from(Level),
    keys,
    st.dictionaries(text, values, max_size=4),
)


@given(records)
def test_a_record_comes_back_equal(record):
    assert decode_record(encode(record)) == record


@given(transitions)
def test_a_transition_comes_back_equal_and_in_order(transition):
    loaded = decode_transition(encode(transition))
    assert loaded == transition
    assert list(loaded.fields) == list(transition.fields)


def test_what_is_no_text_is_none_of_ours():
    with pytest.raises(Unreadable, match="no text"):
        decode_record(encode(JobRecord(JobKey("prod", "a"))).encode())
