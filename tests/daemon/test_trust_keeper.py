"""What the list calls have earned outlives a restart."""

from tests.fakes import FakeApi
from watcher.core.errors import StoreError
from watcher.core.trust import Trust
from watcher.daemon.trust_keeper import TrustKeeper
from watcher.polling.target import Manner, Target


class Notes:
    def __init__(self):
        self.kept, self.writes, self.broken = {}, 0, False

    async def note(self, name, text):
        if self.broken:
            raise StoreError("disk full")
        self.kept[name] = text
        self.writes += 1

    async def notes(self):
        return self.kept


def fleet():
    return {"prod": Target("prod", FakeApi(), Manner())}


async def test_trust_goes_on_in_the_next_life():
    notes, targets = Notes(), fleet()
    targets["prod"].resume(Trust(120.0, hits=60, misses=1, needed=100))
    await TrustKeeper(targets, notes).look()
    again = fleet()
    await TrustKeeper(again, notes).load()
    assert again["prod"].trust == Trust(120.0, hits=60, misses=1, needed=100)


async def test_it_is_noted_where_its_interval_or_its_misses_changed():
    notes, targets = Notes(), fleet()
    keeper = TrustKeeper(targets, notes)
    for trust, writes in [
        (Trust(30.0), 1),
        (Trust(30.0, hits=7), 1),
        (Trust(60.0, hits=50), 2),
        (Trust(30.0, misses=1), 3),
    ]:
        targets["prod"].resume(trust)
        await keeper.look()
        assert notes.writes == writes


async def test_what_cannot_be_read_is_earned_again_and_what_is_not_kept_is_tried_again():
    notes, targets = Notes(), fleet()
    notes.kept = {"trust prod": "[", "trust gone": "{}", "other": "1"}
    keeper = TrustKeeper(targets, notes)
    await keeper.load()
    assert targets["prod"].trust == Trust(30.0)
    notes.broken = True
    await keeper.look()
    notes.broken = False
    await keeper.look()
    assert notes.writes == 1
