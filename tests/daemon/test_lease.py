"""The lease as the deadline of a block: when it is renewed, and when the block is cancelled."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from sqlalchemy import update

from galaxy_trio.daemon.lease import LeaseLost, open_lease
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.lives import read_lives
from galaxy_trio.daemon.store.location import MIN_LEASE
from galaxy_trio.daemon.store.schema import DAEMONS
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.daemon.store.takeover import take_over
from tests.support.machine_sleep import MachineSleep
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.daemon.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.daemon

_LEASE = 30.0


class _Renewals:
    """Renewals of a lease, which succeed unless a test says otherwise.

    Attributes:
        requested: The time of each.
        takes: Seconds until the answer.
        fails: Whether the database is away.
        goes_on: Whether the life goes on.
    """

    def __init__(self) -> None:
        self.requested: list[float] = []
        self.takes = 0.0
        self.fails = False
        self.goes_on = True

    async def __call__(self) -> bool:
        self.requested.append(trio.current_time())
        await trio.sleep(self.takes)
        if self.fails:
            raise StoreError("the database is away")
        return self.goes_on


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MachineSleep:
    return MachineSleep(monkeypatch)


@pytest.fixture
def renewals(machine: MachineSleep) -> _Renewals:
    return _Renewals()


async def test_lease_is_renewed_every_third_of_it_and_only_inside_the_block(
    autojump_clock: MockClock, renewals: _Renewals
) -> None:
    async with open_lease(renewals, _LEASE):
        await trio.sleep(95)
    assert renewals.requested == pytest.approx(range(0, 95, 10))
    await trio.sleep(100)
    assert len(renewals.requested) == 10


async def test_block_is_cancelled_before_the_lease_ends_if_it_cannot_be_renewed(
    autojump_clock: MockClock, renewals: _Renewals, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = r"the lease .* was not renewed for 25 s \(the database is away\); other daemons take over its devices"
    with pytest.raises(LeaseLost, match=sentence) as caught:
        async with open_lease(renewals, _LEASE):
            await trio.sleep(12)
            renewals.fails = True
            await trio.sleep_forever()
    # The last renewal was requested at 10 s.
    assert trio.current_time() == pytest.approx(35)
    assert isinstance(caught.value.__cause__, StoreError)
    attempts = [at for at in renewals.requested if at > 12]
    # The first repetition comes soon, and they do not become many.
    assert attempts[0] == pytest.approx(20)
    assert attempts[1] < 20.5
    assert 6 <= len(attempts) <= 20
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_database_that_is_away_for_less_than_the_lease_costs_nothing(
    autojump_clock: MockClock, renewals: _Renewals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_lease(renewals, _LEASE):
        for _ in range(3):
            await trio.sleep(11)
            renewals.fails = True
            await trio.sleep(12)
            renewals.fails = False
            await trio.sleep(20)
    messages = ["cannot be renewed, and is tried again until it ends: the database is away", "is renewed again"] * 3
    logged = [record.getMessage().removeprefix("the lease of this daemon ") for record in caplog.records]
    assert logged == messages


async def test_block_is_cancelled_immediately_when_the_life_is_over(
    autojump_clock: MockClock, renewals: _Renewals
) -> None:
    with pytest.raises(LeaseLost, match="another daemon found that the lease of this one had expired"):
        async with open_lease(renewals, _LEASE):
            await trio.sleep(15)
            renewals.goes_on = False
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(20)


async def test_block_of_a_life_that_is_over_does_not_begin(autojump_clock: MockClock, renewals: _Renewals) -> None:
    renewals.goes_on = False
    with pytest.raises(LeaseLost, match="another daemon found"):
        async with open_lease(renewals, _LEASE):
            raise AssertionError("not reached")


async def test_block_does_not_begin_if_the_first_renewal_fails(autojump_clock: MockClock, renewals: _Renewals) -> None:
    renewals.fails = True
    with pytest.raises(StoreError, match="the database is away"):
        async with open_lease(renewals, _LEASE):
            raise AssertionError("not reached")
    assert len(renewals.requested) == 1


async def test_lease_counts_from_the_time_before_its_request(autojump_clock: MockClock, renewals: _Renewals) -> None:
    renewals.takes = 4
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            assert trio.current_time() == pytest.approx(4)
            await trio.sleep(5)
            renewals.takes = 9
            await trio.sleep(10)
            # Requested at 10 s, and answered at 19 s.
            renewals.takes = math.inf
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(35)


async def test_renewal_that_gets_no_answer_does_not_delay_the_cancellation(
    autojump_clock: MockClock, renewals: _Renewals
) -> None:
    with pytest.raises(LeaseLost, match=r"was not renewed for 25 s; other daemons"):
        async with open_lease(renewals, _LEASE):
            renewals.takes = math.inf
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(25)


async def test_lease_that_took_too_long_to_renew_ends_the_block_at_its_first_checkpoint(
    autojump_clock: MockClock, renewals: _Renewals
) -> None:
    renewals.takes = 26
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            await trio.lowlevel.checkpoint()
            raise AssertionError("not reached")


async def test_lease_without_an_end_is_not_renewed(autojump_clock: MockClock, renewals: _Renewals) -> None:
    renewals.fails = True
    async with open_lease(renewals, math.inf):
        await trio.sleep(10_000)
    assert renewals.requested == []


async def test_exception_of_the_block_is_raised_unchanged(autojump_clock: MockClock, renewals: _Renewals) -> None:
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        async with open_lease(renewals, _LEASE):
            raise error
    assert caught.value is error


async def test_cancellation_from_outside_is_no_lost_lease(autojump_clock: MockClock, renewals: _Renewals) -> None:
    with trio.move_on_after(12) as scope:
        async with open_lease(renewals, _LEASE):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(12)


async def test_fault_of_the_program_in_a_renewal_is_raised(autojump_clock: MockClock, renewals: _Renewals) -> None:
    async def renew() -> bool:
        if await renewals() and len(renewals.requested) > 1:
            raise TypeError("a fault")
        return True

    with pytest.raises(TypeError, match="a fault"):
        async with open_lease(renew, _LEASE):
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(10)


async def test_time_for_which_the_machine_was_asleep_belongs_to_the_lease(
    autojump_clock: MockClock, renewals: _Renewals, machine: MachineSleep
) -> None:
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            renewals.takes = math.inf
            await trio.sleep(5)
            machine.sleep(15)
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(10)


async def test_lease_that_ended_while_the_machine_was_asleep_ends_the_block_soon(
    autojump_clock: MockClock, renewals: _Renewals, machine: MachineSleep
) -> None:
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            renewals.takes = math.inf
            await trio.sleep(5)
            machine.sleep(1_000)
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(6, abs=1)


async def test_lease_is_renewed_when_the_machine_wakes_up_and_counts_from_then(
    autojump_clock: MockClock, renewals: _Renewals, machine: MachineSleep
) -> None:
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            await trio.sleep(2.5)
            machine.sleep(20)
            await trio.sleep(2)
            assert len(renewals.requested) == 2
            renewals.takes = math.inf
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(renewals.requested[1] + 25)


async def test_clock_that_is_set_back_does_not_make_the_lease_longer(
    autojump_clock: MockClock, renewals: _Renewals, machine: MachineSleep
) -> None:
    with pytest.raises(LeaseLost):
        async with open_lease(renewals, _LEASE):
            renewals.takes = math.inf
            machine.sleep(-100)
            await trio.sleep(2)
            # It looks as if it had slept for 10 s since then.
            machine.sleep(110)
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(15)


async def test_life_that_another_daemon_found_dead_ends_its_block(location: PostgresqlLocation) -> None:
    location = attrs.evolve(location, lease=MIN_LEASE)

    def die(transaction: Transaction) -> None:
        transaction.connection.execute(update(DAEMONS).values(expires=0))
        assert take_over(transaction, "another").lives == (store.life,)

    with trio.fail_after(SECONDS):
        async with open_store(location) as store:
            with pytest.raises(LeaseLost, match="another daemon found"):
                async with open_lease(store.renew, store.lease):
                    await store.write(die)
                    await trio.sleep_forever()


async def test_block_has_ended_when_others_may_take_over_although_the_database_was_away(
    postgresql: PostgresqlServer, location: PostgresqlLocation
) -> None:
    # To stop the server may take a second or two.
    lease = 2 * MIN_LEASE
    location = attrs.evolve(location, lease=lease)
    ended = 0.0
    with trio.fail_after(SECONDS):
        async with open_store(location) as store:
            try:
                with pytest.raises(LeaseLost, match=r"was not renewed for 5 s \(the database .* failed: "):
                    async with open_lease(store.renew, store.lease):
                        await trio.to_thread.run_sync(postgresql.stop)
                        try:
                            await trio.sleep_forever()
                        finally:
                            ended = time.time()
            finally:
                await trio.to_thread.run_sync(postgresql.start)
            [life] = await store.read(read_lives)
            assert ended < life.expires
