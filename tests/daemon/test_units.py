"""What is leased together, under which name, and how many are whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.daemon.units import share_of, unit_of, units_of
from watcher.ports import LeaseTable
from watcher.settings.schema import Target


def target(kind="static", **more):
    given = {"kind": kind, **more}
    if kind == "static":
        given = {"access_key": "AK", "secret_key": "s1", **given}
    if kind == "token":
        given = {"user": "u", "password": "p", "domain": "d", **given}
    return Target(region="cn-north-4", project_id="p", credentials=given)


def test_targets_of_one_key_are_one_unit_whatever_their_secret():
    units = units_of(
        {"a": target(), "b": target(secret_key="s2"), "c": target(access_key="AK2")}
    )
    assert units["a"] == units["b"] != units["c"]
    assert "AK" not in units["a"]


def test_it_is_the_same_in_every_process():
    assert unit_of("a", target()) == "key-3c4e58eff203"


def test_users_are_told_apart_by_domain_and_name():
    names = [
        unit_of("a", target("token", user=user, domain=domain))
        for user, domain in [("u", "d"), ("u", "e"), ("ud", "x")]
    ]
    assert len(set(names)) == 3
    again = unit_of("b", target("token", password="other"))
    assert again == names[0]


def test_targets_without_a_key_stand_alone():
    units = units_of({"a": target("none"), "b": target("none")})
    assert units == {"a": "target-a", "b": "target-b"}


@pytest.mark.parametrize("kind", ["chain", "profile", "metadata"])
def test_keys_that_are_yet_to_be_found_are_one_unit_a_place(kind):
    assert units_of({"a": target(kind), "b": target(kind)}) == {"a": kind, "b": kind}


@given(st.data(), st.integers(1, 6), st.integers(0, 20))
def test_shares_are_even_and_add_up_and_move_nothing_that_is_even(data, alive, count):
    names = [f"r{number}" for number in range(alive)]
    units = [f"u{number}" for number in range(count)]
    owners = st.sampled_from([*names, None])
    holders = {unit: data.draw(owners) for unit in units}
    table = LeaseTable(holders, alive)
    held = {name: sum(it == name for it in holders.values()) for name in names}
    shares = {name: share_of(name, table, units) for name in names}
    assert max(shares.values()) - min(shares.values()) <= 1
    # Whoever holds nothing cannot tell how many others do not.
    if all(held.values()):
        assert sum(shares.values()) == count
    else:
        assert sum(shares.values()) >= count
    if max(held.values()) - min(held.values()) <= 1 and None not in holders.values():
        assert all(held[name] <= shares[name] for name in names)


def test_what_others_hold_beyond_these_units_does_not_count():
    table = LeaseTable({"u1": "a", "old": "b"}, 2)
    assert share_of("a", table, ["u1", "u2"]) == 1
    assert share_of("b", table, ["u1"]) == 0
