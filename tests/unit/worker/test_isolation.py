"""Who may use the engine at the same time."""

from mesh.worker.isolation import Isolation


async def test_company_shares():
    door = Isolation()
    assert door.take(alone=False)
    assert door.take(alone=False)
    assert not door.take(alone=True)
    assert not door.is_wanted


async def test_one_alone_waits_for_all_and_nobody_begins_meanwhile():
    door = Isolation()
    assert door.take(alone=False)
    alone = door.line_up()
    assert door.is_wanted
    assert not door.take(alone=False)
    assert not door.take(alone=True)
    door.leave(alone=False)
    assert alone.done()
    assert not door.take(alone=False)
    door.leave(alone=True)
    assert not door.is_wanted
    assert door.take(alone=False)


async def test_who_needs_to_be_alone_no_longer_stays_in_company():
    door = Isolation()
    assert door.take(alone=True)
    door.share()
    assert not door.is_wanted
    assert door.take(alone=False)
    assert not door.take(alone=True)
    door.leave(alone=False)
    door.leave(alone=False)
    assert door.take(alone=True)


async def test_who_gives_up_waiting_holds_nobody_up():
    door = Isolation()
    assert door.take(alone=False)
    door.give_up(door.line_up())
    assert not door.is_wanted
    assert door.take(alone=False)


async def test_a_place_given_to_who_just_left_is_free():
    door = Isolation()
    assert door.take(alone=False)
    turn = door.line_up()
    door.leave(alone=False)  # it is its turn, and it has not noticed yet
    door.give_up(turn)
    assert door.take(alone=False)
