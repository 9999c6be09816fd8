"""Trust in the list: earned by many looks, lost by one, and never at a task's cost."""

from dataclasses import dataclass, field, replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.core.listing import Listing, Mode
from watcher.core.model import Job, JobKey, JobRecord, Level, ListPage
from watcher.core.trust import FIRST_NEEDED, MOST_NEEDED, Trust, changed

NEW = Trust(30.0)


def look(trust, *moves, least=30.0, most=600.0):
    for row_moved in moves:
        trust = trust.looked(moved=True, row_moved=row_moved, least=least, most=most)
    return trust


class TestTrust:
    def test_fifty_hits_running_double_the_interval(self):
        assert look(NEW, *[True] * 49).interval == 30
        assert look(NEW, *[True] * 50).interval == 60
        assert look(NEW, *[True] * 99).interval == 60
        assert look(NEW, *[True] * 100).interval == 120
        assert look(NEW, *[True] * 250).interval == 600, "up to the limit"
        assert look(NEW, *[True] * 2000).interval == 600

    def test_one_miss_takes_it_back_and_asks_for_twice_as_many(self):
        earned = look(NEW, *[True] * 120)
        fallen = look(earned, False)
        assert fallen == Trust(30.0, hits=0, misses=1, needed=100)
        assert look(fallen, *[True] * 99).interval == 30
        assert look(fallen, *[True] * 100).interval == 60

    def test_never_more_than_a_thousand(self):
        assert look(NEW, *[False] * 40).needed == MOST_NEEDED

    def test_a_look_at_which_no_task_had_moved_is_no_evidence(self):
        for row_moved in (True, False):
            same = NEW.looked(moved=False, row_moved=row_moved, least=30.0, most=600.0)
            assert same is NEW

    def test_equal_bounds_never_stretch(self):
        assert look(NEW, *[True] * 500, most=30.0).interval == 30

    @given(
        st.lists(st.tuples(st.booleans(), st.booleans())),
        st.floats(1, 1e4),
        st.floats(1, 1e4),
    )
    def test_it_stays_within_its_bounds(self, looks, least, above):
        most = max(least, above)
        trust = Trust(least)
        for moved, row_moved in looks:
            before = trust
            trust = trust.looked(
                moved=moved, row_moved=row_moved, least=least, most=most
            )
            assert least <= trust.interval <= most
            assert FIRST_NEEDED <= trust.needed <= MOST_NEEDED
            if moved and not row_moved:
                assert (trust.interval, trust.hits) == (least, 0)
                assert trust.misses == before.misses + 1

    @pytest.mark.parametrize(
        ("kept", "resumed"),
        [
            (Trust(120.0, 60, 1, 100), Trust(120.0, 60, 1, 100)),
            (Trust(1200.0), Trust(600.0)),
            (Trust(10.0), Trust(30.0)),
            (Trust(-1.0, -5, -2, -9), Trust(30.0)),
            (Trust(inf, needed=10**9), Trust(600.0, needed=MOST_NEEDED)),
        ],
    )
    def test_what_was_kept_is_brought_within_the_settings(self, kept, resumed):
        assert kept.within(30.0, 600.0) == resumed
        listing = Listing(
            Mode.LIST, interval=10.0, task_interval=30.0, task_interval_max=600.0
        )
        listing.resume(kept)
        assert listing.trust == resumed

    def test_it_is_told_when_the_interval_is_another_one(self):
        earned = look(NEW, *[True] * 50)
        assert list(changed("prod", NEW, replace(NEW, hits=3))) == []
        (notice,) = changed("prod", NEW, earned)
        assert (notice.event, notice.level) == ("poll.trust", Level.INFO)
        assert notice.fields == {
            "target": "prod",
            "interval": 60.0,
            "hits": 50,
            "misses": 0,
        }
        (notice,) = changed("prod", earned, look(earned, False))
        assert (notice.level, notice.fields["interval"]) == (Level.WARNING, 30.0)


INTERVAL, LEAST, MOST, SLOW = 10.0, 30.0, 240.0, 3


@dataclass
class World:
    """Jobs that move, a list that tells or lies, and who asks both; a second a turn.

    Attributes:
        moves: Seconds at which a task of a job moves, by job.
        lies_from: From then on the rows stay as they are.
        shared: Whether the job itself shows the same `updated_at` as its row.
        delays: How long the answers take, in turn.
    """

    moves: dict
    lies_from: float = inf
    shared: bool = False
    delays: list = field(default_factory=lambda: [0])
    most: float = MOST

    def __post_init__(self):
        self.now = 0
        self.listing = Listing(
            Mode.LIST,
            target="prod",
            interval=INTERVAL,
            task_interval=LEAST,
            task_interval_max=self.most,
        )
        self.state = dict.fromkeys(self.moves, 0)
        self.known = dict.fromkeys(self.moves, 0)
        self.due = {job: float(number) for number, job in enumerate(self.moves)}
        self.prior = dict.fromkeys(self.moves, -inf)
        self.arriving, self.answers, self.unseen = [], 0, []
        self.in_flight, self.late, self.lies = set(), [], []
        self.listing_until = -1

    def shown(self, job, *, in_list):
        told = min(self.now, self.lies_from)
        moved = [at for at in self.moves[job] if at <= self.now]
        if in_list or self.shared:
            moved = [at for at in moved if at < told or told == self.now]
        return float(max(moved, default=0))

    def run(self, seconds):
        for self.now in range(seconds):
            for job in (job for job, at in self.moves.items() if self.now in at):
                self.state[job] += 1
                self.unseen.append((job, self.now, self.listing.trust.interval))
            self.take_in_all()
            if self.now > self.listing_until and self.listing.wanted(9, self.now):
                self.ask_list()
            for job in self.due.keys() - self.in_flight:
                if self.due[job] <= self.now:
                    self.ask(job)
        return self

    def take_in_all(self):
        before = self.listing.trust.interval
        for each in [one for one in self.arriving if one[0] <= self.now]:
            self.arriving.remove(each)
            each[1](*each[2:])
        if self.listing.trust.interval < before:
            for job, due in self.due.items():
                self.due[job] = min(due, self.now + LEAST)

    def delay(self):
        self.answers += 1
        return self.now + self.delays[self.answers % len(self.delays)]

    def ask_list(self):
        rows = tuple(
            Job(job, "PROCESSING", 0, updated_at=self.shown(job, in_list=True))
            for job in self.moves
        )
        self.listing_until = self.delay()
        self.arriving.append((self.listing_until, self.listed, rows, self.now))

    def listed(self, rows, sent_at):
        running = {job: Job(job, "PROCESSING", 0) for job in self.moves}
        page = ListPage(rows, len(rows))
        for job in self.listing.take(page, running, self.now, sent_at=sent_at):
            self.due[job] = min(self.due[job], self.now)
        for looked_at, misses in [one for one in self.lies if one[0] <= sent_at]:
            self.lies.remove((looked_at, misses))
            assert self.listing.trust.misses > misses, "a lie that was not noticed"
            assert self.listing.trust.hits == 0 or self.listing.trust.interval == LEAST

    def ask(self, job):
        self.in_flight.add(job)
        shown = self.state[job], self.shown(job, in_list=False)
        self.arriving.append((self.delay(), self.answered, job, shown, self.now))

    def answered(self, job, shown, sent_at):
        self.in_flight.discard(job)
        state, updated_at = shown
        moved = state != self.known[job]
        self.known[job] = state
        misses, prior = self.listing.trust.misses, self.prior[job]
        active, self.prior[job] = self.listing.active, sent_at
        record = JobRecord(
            JobKey("prod", job), job=Job(job, updated_at=updated_at), moves=state
        )
        self.listing.looked(record, sent_at, self.now)
        if moved and active and prior > self.lies_from + INTERVAL + 2 * SLOW:
            self.lies.append((self.now, misses))
        self.due[job] = sent_at + self.listing.trust.interval
        seen = [
            one
            for one in self.unseen
            if one[0] == job and sum(at <= one[1] for at in self.moves[job]) <= state
        ]
        for one in seen:
            self.late.append(self.now - one[1] - one[2])
        # What moved while this look was under way is seen by the next one.
        allowed = self.listing.trust.interval
        self.unseen = [
            (*one[:2], max(one[2], allowed)) if one[0] == job else one
            for one in self.unseen
            if one not in seen
        ]


moments = st.sets(st.integers(1, 400), max_size=12).map(sorted)
jobs = st.dictionaries(st.sampled_from("abc"), moments, min_size=1)
delays = st.lists(st.integers(0, SLOW), min_size=1, max_size=7)


@pytest.mark.parametrize("shared", [False, True])
@settings(max_examples=60, deadline=None)
@given(moves=jobs, lies_from=st.integers(0, 500), delays=delays)
def test_whatever_the_list_does_no_task_is_seen_later_than_is_allowed(
    shared, moves, lies_from, delays
):
    world = World(moves, lies_from, shared, delays)
    world.listing.trust = Trust(LEAST, needed=2)
    world.run(700)
    assert max(world.late, default=0) <= SLOW + 1
    assert world.unseen == []


@settings(max_examples=60, deadline=None)
@given(moves=jobs, delays=delays)
def test_a_list_that_tells_everything_is_never_called_a_liar(moves, delays):
    world = World(moves, delays=delays)
    world.listing.trust = Trust(LEAST, needed=2)
    assert world.run(700).listing.trust.misses == 0


EVERY_MINUTE = {job: list(range(7 + n, 9000, 61 + n)) for n, job in enumerate("abc")}


def test_trust_is_earned_by_a_list_that_tells():
    world = World(EVERY_MINUTE)
    world.run(4000)
    told = [notice.fields["interval"] for notice in world.listing.notices()]
    assert told == [60, 120, 240]


def test_a_lie_after_much_trust():
    world = World(EVERY_MINUTE, lies_from=4000)
    world.listing.trust = Trust(MOST)
    world.run(4000 + int(MOST) + 30)
    assert world.listing.trust.interval == LEAST
    assert world.listing.trust.misses > 0
    assert world.listing.notices()[-1].fields["interval"] == LEAST


def test_a_list_that_never_tells_earns_nothing():
    world = World(EVERY_MINUTE, lies_from=0)
    world.run(4000)
    assert world.listing.trust.interval == LEAST
    assert world.listing.trust.needed == MOST_NEEDED


def test_equal_bounds_stay_as_they_are():
    world = World(EVERY_MINUTE, most=LEAST)
    world.run(4000)
    assert world.listing.trust.interval == LEAST
    assert world.listing.trust.hits > FIRST_NEEDED
    assert world.listing.notices() == []
