"""The queue of executions against a plain model."""

from hypothesis import given
from hypothesis import strategies as st

from runtimed.execution.queue import Begin, Drop, ExecutionQueue, Interrupt, Ticket
from runtimed.ids import ClientId, ExecutionId

FAILED_BEFORE = "an execution that the same client queued before it failed"


def ticket(name: str, client: str = "ann") -> Ticket:
    return Ticket(ExecutionId(name), ClientId(client))


def ready_queue(*names: str) -> ExecutionQueue:
    queue = ExecutionQueue()
    queue.kernel_ready()
    for name in names:
        queue.add(ticket(name))
    return queue


def test_executions_begin_one_at_a_time_and_in_order():
    queue = ExecutionQueue()

    assert queue.add(ticket("a")) == []
    assert queue.add(ticket("b")) == []
    assert queue.kernel_ready() == [Begin(ExecutionId("a"))]
    assert (queue.running, queue.waiting) == ("a", ["b"])
    assert queue.finished(ExecutionId("a"), success=True) == [Begin(ExecutionId("b"))]
    assert queue.finished(ExecutionId("b"), success=True) == []
    assert not queue.busy


def test_an_error_drops_what_the_same_client_queued_behind_it_and_nobody_elses():
    queue = ready_queue("a", "b")
    queue.add(ticket("theirs", "bob"))
    queue.add(ticket("c"))

    assert queue.finished(ExecutionId("a"), success=False) == [
        Drop(ExecutionId("b"), FAILED_BEFORE),
        Drop(ExecutionId("c"), FAILED_BEFORE),
        Begin(ExecutionId("theirs")),
    ]


def test_cancelling_takes_a_waiting_execution_away_and_interrupts_a_running_one():
    queue = ready_queue("a", "b")

    assert queue.cancel(ExecutionId("b"), "why") == [Drop(ExecutionId("b"), "why")]
    assert queue.cancel(ExecutionId("a"), "why") == [Interrupt(ExecutionId("a"))]
    assert queue.cancel(ExecutionId("unknown"), "why") == []


def test_what_is_queued_after_an_interrupt_is_not_dropped_when_the_interrupted_execution_fails():
    queue = ready_queue("a", "b")
    queue.interrupting()
    queue.add(ticket("c"))

    assert queue.finished(ExecutionId("a"), success=False) == [
        Drop(ExecutionId("b"), FAILED_BEFORE),
        Begin(ExecutionId("c")),
    ]
    queue.add(ticket("d"))
    assert queue.finished(ExecutionId("c"), success=False) == [Drop(ExecutionId("d"), FAILED_BEFORE)]


def test_a_kernel_that_goes_drops_what_waits_and_a_new_one_begins_afresh():
    queue = ready_queue("a", "b")

    assert queue.kernel_gone("the kernel ended") == [Drop(ExecutionId("b"), "the kernel ended")]
    assert queue.running == "a"
    assert queue.finished(ExecutionId("a"), success=False) == []
    assert queue.add(ticket("c")) == []
    assert queue.kernel_ready() == [Begin(ExecutionId("c"))]


def test_news_of_an_unknown_execution_changes_nothing():
    queue = ready_queue("a", "b")

    assert queue.finished(ExecutionId("c"), success=False) == []
    assert (queue.running, queue.waiting) == ("a", ["b"])


def test_after_a_look_away_the_queue_goes_on_where_the_kernel_is():
    queue = ready_queue("a", "b")
    waiting = [ticket("b"), ticket("c"), ticket("d")]

    assert queue.restore(ticket("a"), waiting) == []
    assert queue.finished(ExecutionId("a"), success=True) == [Begin(ExecutionId("b"))]
    assert queue.restore(None, waiting) == [Begin(ExecutionId("b"))]
    assert (queue.running, queue.waiting) == ("b", ["c", "d"])


def test_an_execution_that_had_ended_while_nobody_looked_does_not_stay_in_the_queue():
    queue = ready_queue("a")

    # The kernel had ended a and was given b, when whoever gave it died before noting the end of a.
    assert queue.restore(ticket("b"), [ticket("a"), ticket("c", "bob")]) == []
    assert queue.finished(ExecutionId("a"), success=True) == []
    assert (queue.running, queue.waiting) == ("b", ["c"])
    assert queue.finished(ExecutionId("b"), success=True) == [Begin(ExecutionId("c"))]


def test_a_copy_and_its_original_go_their_own_ways():
    queue = ready_queue("a", "b", "c")
    copied = queue.copy()

    queue.finished(ExecutionId("a"), success=False)
    copied.add(ticket("d"))

    assert (queue.running, queue.waiting) == (None, [])
    assert (copied.running, copied.waiting) == ("a", ["b", "c", "d"])
    assert copied.finished(ExecutionId("a"), success=True) == [Begin(ExecutionId("b"))]


def test_what_is_queued_while_the_kernel_is_replaced_outlives_how_the_old_one_ended():
    queue = ready_queue("a", "b")
    assert queue.kernel_gone("restarted") == [Drop(ExecutionId("b"), "restarted")]
    queue.add(ticket("c"))

    assert queue.finished(ExecutionId("a"), success=False) == []
    assert queue.kernel_ready() == [Begin(ExecutionId("c"))]


@given(st.lists(st.tuples(st.sampled_from(["add", "ok", "error", "cancel", "gone", "ready"]), st.integers(0, 5))))
def test_every_execution_begins_or_is_dropped_once_and_never_both(steps):
    queue = ExecutionQueue()
    begun: list[str] = []
    dropped: list[str] = []
    added = 0
    for action, number in steps:
        match action:
            case "add":
                instructions = queue.add(ticket(f"e{added}", f"client{number % 2}"))
                added += 1
            case "ok" | "error":
                running = queue.running or ExecutionId("none")
                instructions = queue.finished(running, success=action == "ok")
            case "cancel":
                instructions = queue.cancel(ExecutionId(f"e{number}"), "why")
            case "gone":
                instructions = queue.kernel_gone("gone")
            case _:
                instructions = queue.kernel_ready()
        begun += [i.execution_id for i in instructions if isinstance(i, Begin)]
        dropped += [i.execution_id for i in instructions if isinstance(i, Drop)]

    accounted = begun + dropped + list(queue.waiting)
    assert sorted(accounted) == sorted(f"e{n}" for n in range(added))
    assert len(set(begun)) == len(begun)
    assert begun == sorted(begun, key=lambda name: int(name[1:]))
