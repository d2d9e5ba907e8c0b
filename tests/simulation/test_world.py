"""The simulated world: what can happen in it, what then does, and that it can be come back to."""

import pytest

from common.domain.decision import Rules
from compare.lab import MODES
from compare.scenario import RecoverySpec
from compare.simulation.actions import Action, Mishap, parse_action
from compare.simulation.campaign import world_of
from compare.simulation.drive import Anomaly, Calm, drive, go_on, simulated_plan
from compare.simulation.protections import Protection
from compare.simulation.world import World
from tests.simulation.worlds import BOTH, ends, happen, orders

RESERVING = {"orchestrated": "ReserveInventory(1)", "choreographed": "OrderCreated(1)"}
"""By mode: the record that makes Inventory reserve."""
PAYING = {"orchestrated": "ProcessPayment(1)", "choreographed": "InventoryReserved(1)"}

both_modes = pytest.mark.parametrize("mode", BOTH)


@both_modes
def test_in_peace_orders_end_as_they_should(mode: str) -> None:
    """With nothing going wrong, what can be had and paid for is completed, and the rest is not."""
    history = happen(mode, orders(100, 501, 500, stock=3))
    assert ends(history) == ["COMPLETED", "FAILED payment_declined", "COMPLETED"]
    assert ends(happen(mode, orders(100, 100, stock=1))) == ["COMPLETED", "FAILED out_of_stock"]
    assert not history.anomalies


@both_modes
@pytest.mark.parametrize("mishap", [one for one in Mishap if not one.startswith("fails")])
def test_a_service_may_die_at_any_boundary(mode: str, mishap: Mishap) -> None:
    """Whatever was done or not done by then, the order ends as if nothing had been."""
    history = happen(mode, orders(100), f"payment takes {PAYING[mode]}, {mishap}")
    assert f"payment takes {PAYING[mode]}, {mishap}" in map(str, history.actions)
    assert ends(history) == ["COMPLETED"]
    assert not history.anomalies


@both_modes
@pytest.mark.parametrize("mishap", [one for one in Mishap if one.startswith("dies")])
def test_a_service_may_die_while_it_starts(mode: str, mishap: Mishap) -> None:
    """What an earlier life has left is published by the next, whole and once in effect."""
    history = happen(
        mode,
        orders(100, 501),
        f"payment takes {PAYING[mode]} + {PAYING[mode].replace('1', '2')}, dies committed",
        f"payment starts, {mishap}",
    )
    assert f"payment starts, {mishap}" in map(str, history.actions)
    assert ends(history) == ["COMPLETED", "FAILED payment_declined"]
    assert not history.anomalies
    told = [one.type for one in history.recording.trace if one.type.startswith("PaymentDeclined")]
    assert told == ["PaymentDeclined"] * (2 if mishap is Mishap.DIES_PUBLISHED else 1)


@both_modes
def test_to_die_while_starting_tells_the_first_half_of_what_was_left(mode: str) -> None:
    """Of two records left, the next life tells both, for it can't know of the one that was told."""
    history = happen(
        mode,
        orders(100, 501),
        f"payment takes {PAYING[mode]} + {PAYING[mode].replace('1', '2')}, dies committed",
        "payment starts, dies publishing",
    )
    told = [one.type for one in history.recording.trace if one.producer == "payment"]
    assert told[:3] == ["PaymentProcessed", "PaymentProcessed", "PaymentDeclined"]


@both_modes
def test_what_has_died_does_nothing_until_it_starts(mode: str) -> None:
    """Others go on meanwhile, as far as they can."""
    history = happen(
        mode,
        orders(100, 100),
        f"payment takes {PAYING[mode]}, dies before",
        f"inventory takes {RESERVING[mode].replace('1', '2')}",
        "payment starts",
    )
    happened = [*map(str, history.actions)]
    died, other = (
        happened.index(f"payment takes {PAYING[mode]}, dies before"),
        happened.index("payment starts"),
    )
    assert not any(action.startswith("payment") for action in happened[died + 1 : other])
    assert ends(history) == ["COMPLETED", "COMPLETED"]


@both_modes
def test_a_lost_record_is_asked_for_again(mode: str) -> None:
    """Time passes to the deadline, and the order is completed in the end."""
    history = happen(mode, orders(100), f"broker loses {PAYING[mode]}")
    assert ends(history) == ["COMPLETED"]
    assert [(strike.kind, strike.record_type) for strike in history.recording.strikes] == [
        ("lose", PAYING[mode].removesuffix("(1)"))
    ]


@both_modes
def test_who_stalled_can_not_commit_what_is_another_instances(mode: str) -> None:
    """It publishes what it was about to, when its order has long ended; that is dropped as a duplicate."""
    history = happen(
        mode, orders(100), f"payment takes {PAYING[mode]}, stalls", "order wakes", "payment goes on"
    )
    happened = [*map(str, history.actions)]
    told = [index for index, action in enumerate(happened) if action.startswith("order takes")]
    assert happened.index("payment goes on") > told[0]
    assert ends(history) == ["COMPLETED"]
    assert not history.anomalies


@both_modes
def test_a_moment_can_be_come_back_to(mode: str) -> None:
    """From a snapshot, the same goes on in the same way, whatever has happened since."""
    world = World(MODES[mode])
    world.begin(simulated_plan(orders(100, 501), Rules()))
    first = [Calm().step(world) for _ in range(4)]
    moment, known = world.snapshot(), world.fingerprint()
    once = go_on(world, Calm(), [one for one in first if one])
    world.put_back(moment)
    assert world.fingerprint() == known
    again = go_on(world, Calm(), [one for one in first if one])
    assert (once.digest(), once.actions) == (again.digest(), again.actions)
    world.close()


@both_modes
def test_the_order_of_what_has_nothing_to_do_with_each_other_does_not_matter(mode: str) -> None:
    """Two ways to the same situation have one fingerprint, so that it is looked at once."""
    world = World(MODES[mode])
    reserve, pay = f"inventory takes {RESERVING[mode].replace('1', '2')}", f"payment takes {PAYING[mode]}"
    prints = []
    for order in ((reserve, pay), (pay, reserve)):
        drive(world, simulated_plan(orders(100, 100), Rules()), Until(PAYING[mode]))
        for text in order:
            assert world.do(parse_action(text)), text
        prints.append(world.fingerprint())
    assert prints[0] == prints[1]
    world.close()


class Until(Calm):
    """What is next in turn, until Payment could take a record; the second order's goods are not held yet."""

    def __init__(self, record: str) -> None:
        self._record = record

    def step(self, world: World) -> Action | None:
        """Do what is next in turn, unless it is Inventory's turn with the second order."""
        if self._record in {head.name for head in world.heads("payment")}:
            return None
        left = [action for action in world.enabled() if action.actor != "inventory" or 2 not in action.orders]
        action = next(iter(left), None)
        if action is not None:
            world.do(action)
        return action


def test_nothing_is_done_that_is_not_possible() -> None:
    """An action that can't come says so, and changes nothing."""
    world = world_of("orchestrated", ())
    world.begin(simulated_plan(orders(100), Rules()))
    before = world.fingerprint()
    for text in (
        "customer cancels 1",
        "payment takes ProcessPayment(1)",
        "payment starts",
        "payment goes on",
        "order wakes",
        "broker loses ProcessPayment(1)",
        "broker repeats ProcessPayment(1)",
        "time passes",
    ):
        assert not world.do(parse_action(text)), text
    assert world.fingerprint() == before


def test_row_locks_keep_two_instances_apart() -> None:
    """The second instance has to wait for the last piece; without the locks, it is sold twice."""
    at_once = "inventory takes OrderCreated(2) beside OrderCreated(1)"
    assert sorted(ends(happen("choreographed", orders(100, 100, stock=1), at_once))) == [
        "COMPLETED",
        "FAILED out_of_stock",
    ]
    unlocked = happen("choreographed", orders(100, 100, stock=1), at_once, without=(Protection.ROW_LOCKS,))
    assert Anomaly.OVERSELL in unlocked.anomalies


def test_a_service_that_breaks_is_found() -> None:
    """An error that the core has no answer to ends the history, and says what it was."""

    class Breaking:
        """Somebody who breaks something at the third step."""

        def step(self, world: World) -> Action | None:
            """Do what is next in turn, twice."""
            if world.now_is.steps == 2:
                text = "no such table: payments"
                raise RuntimeError(text)
            return Calm().step(world)

    world = world_of("choreographed", ())
    history = drive(world, simulated_plan(orders(100), Rules()), Breaking())
    assert Anomaly.BROKEN in history.anomalies
    assert "a service breaks: RuntimeError: no such table: payments" in history.faults


@both_modes
def test_what_never_ends_is_stuck(mode: str) -> None:
    """A history that is longer than any should be is not taken for one that is over."""
    history = drive(world_of(mode, ()), simulated_plan(orders(100), Rules()), Calm(), most_steps=3)
    assert Anomaly.STUCK in history.anomalies
    assert "after 3 steps it still goes on" in history.faults


@pytest.mark.parametrize(
    ("mode", "schedule"),
    [
        pytest.param(
            "orchestrated",
            (
                "inventory takes ReserveInventory(1) + ReleaseInventory(1)",
                "broker loses InventoryReleased(1)",
            ),
            id="the undo is lost, and comes behind the action",
        ),
        pytest.param(
            "orchestrated",
            (
                "orchestrator takes CancelSaga(1)",
                "inventory takes ReserveInventory(1) + ReleaseInventory(1)",
                "broker loses InventoryReserved(1)",
            ),
            id="the action is lost, and comes before the undo",
        ),
        pytest.param(
            "orchestrated",
            (
                "orchestrator takes InventoryReserved(1)",
                "orchestrator takes CancelSaga(1)",
                "payment takes ProcessPayment(1) + CancelPayment(1)",
                "order takes SagaCompleted(1)",
                "broker loses PaymentProcessed(1)",
            ),
            id="an answer is told twice, and lost once",
        ),
        pytest.param(
            "choreographed",
            (
                "payment takes InventoryReserved(1) + OrderCancelRequested(1), dies acknowledged",
                "broker loses PaymentProcessed(1)",
            ),
            id="the answer to a cancel is there, and what it repeats comes later",
        ),
        pytest.param(
            "choreographed",
            (
                "inventory takes OrderCreated(1)",
                "time passes",
                "order wakes",
                "payment takes InventoryReserved(1) + OrderAborted(1)~2",
                "broker loses PaymentProcessed(1)",
            ),
            id="a charge is lost, and comes before its refund",
        ),
    ],
)
def test_what_a_transaction_tells_is_in_order_though_part_of_it_is_lost(
    mode: str, schedule: tuple[str, ...]
) -> None:
    """The records' account puts what is lost where its service has told it, not before or behind all else."""
    impatient = {"recovery": RecoverySpec(deadline_tries=1)} if "time passes" in schedule else {}
    cancel = any("Cancel" in line or "+ ReleaseInventory" in line for line in schedule)
    history = happen(mode, orders(100, cancel=cancel).model_copy(update=impatient), *schedule)
    assert set(schedule) <= set(map(str, history.actions))
    assert not history.faults


def test_of_two_ends_in_one_transaction_the_first_is_lost() -> None:
    """The records' account has them in their order: what failed first has ended after all."""
    schedule = (
        "inventory takes ReleaseInventory(1), fails for good",
        "time passes",
        "orchestrator wakes",
        "time passes",
        "order wakes",
        "time passes",
        "orchestrator wakes",
        "inventory takes ReleaseInventory(1)~2",
        "orchestrator takes InventoryReleaseFailed(1) + InventoryReleased(1)~2",
        "broker loses SagaCompensationFailed(1)",
    )
    history = happen("orchestrated", orders(600), *schedule)
    assert set(schedule) <= set(map(str, history.actions))
    assert not history.faults


def test_an_end_needs_a_reason() -> None:
    """That an order timed out though nothing was late is not explained by anything that happened to it."""
    impatient = orders(100).model_copy(update={"recovery": RecoverySpec(deadline_tries=1)})
    dies = "payment takes InventoryReserved(1), dies before"
    assert ends(happen("choreographed", impatient, dies)) == ["COMPLETED"]
    lost = happen("choreographed", impatient, dies, without=(Protection.COMMIT_ORDER,))
    assert ends(lost) == ["FAILED timed_out"]
    assert lost.anomalies == {Anomaly.UNEXPLAINED}
