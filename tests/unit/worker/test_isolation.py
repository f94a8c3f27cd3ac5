"""Who may use the engine at the same time."""

from mesh.worker.isolation import Isolation


async def test_company_shares() -> None:
    door = Isolation()
    assert door.take(isolated=False)
    assert door.take(isolated=False)
    assert not door.take(isolated=True)
    assert not door.is_wanted


async def test_one_alone_waits_for_all_and_nobody_begins_meanwhile() -> None:
    door = Isolation()
    assert door.take(isolated=False)
    isolated = door.line_up()
    assert door.is_wanted
    assert not door.take(isolated=False)
    assert not door.take(isolated=True)
    door.leave(isolated=False)
    assert isolated.done()
    assert not door.take(isolated=False)
    door.leave(isolated=True)
    assert not door.is_wanted
    assert door.take(isolated=False)


async def test_who_needs_to_be_alone_no_longer_stays_in_company() -> None:
    door = Isolation()
    assert door.take(isolated=True)
    door.share()
    assert not door.is_wanted
    assert door.take(isolated=False)
    assert not door.take(isolated=True)
    door.leave(isolated=False)
    door.leave(isolated=False)
    assert door.take(isolated=True)


async def test_who_gives_up_waiting_holds_nobody_up() -> None:
    door = Isolation()
    assert door.take(isolated=False)
    door.give_up(door.line_up())
    assert not door.is_wanted
    assert door.take(isolated=False)


async def test_a_place_given_to_who_just_left_is_free() -> None:
    door = Isolation()
    assert door.take(isolated=False)
    turn = door.line_up()
    door.leave(isolated=False)  # it is its turn, and it has not noticed yet
    door.give_up(turn)
    assert door.take(isolated=False)
