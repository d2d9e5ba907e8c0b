---------------------------- MODULE Orchestrated ----------------------------
(* The orchestrated wiring: the orchestrator commands the services, and hears  *)
(* their answers. It is one more service, with a table and deadlines.          *)
EXTENDS Saga

VARIABLE saga       \* by order: [state, begun]; begun: the steps that may have had an effect

vars == <<shared, saga>>

On(service, topic, command) == [service |-> service, topic |-> topic, command |-> command]
Accept(service, command) == On(service, "saga.commands", command)
Answer(message) == On("orchestrator", "saga.events", message)

Wiring == [
    SagaStarted            |-> Accept("orchestrator", "SagaStarted"),
    CancelSaga             |-> Accept("orchestrator", "CancelSaga"),
    RetryCompensation      |-> Accept("orchestrator", "RetryCompensation"),

    ReserveInventory       |-> Accept("inventory", "ReserveInventory"),
    ReleaseInventory       |-> Accept("inventory", "ReleaseInventory"),
    ProcessPayment         |-> Accept("payment", "ProcessPayment"),
    RefundPayment          |-> Accept("payment", "RefundPayment"),
    CancelPayment          |-> Accept("payment", "CancelPayment"),

    InventoryReserved      |-> Answer("InventoryReserved"),
    InventoryRejected      |-> Answer("InventoryRejected"),
    InventoryReleased      |-> Answer("InventoryReleased"),
    InventoryReleaseFailed |-> Answer("InventoryReleaseFailed"),
    PaymentProcessed       |-> Answer("PaymentProcessed"),
    PaymentDeclined        |-> Answer("PaymentDeclined"),
    PaymentRefunded        |-> Answer("PaymentRefunded"),
    PaymentRefundFailed    |-> Answer("PaymentRefundFailed"),

    SagaCompleted          |-> On("order", "saga.events", "CompleteOrder"),
    SagaFailed             |-> On("order", "saga.events", "FailOrder"),
    SagaCompensationFailed |-> On("order", "saga.events", "FailCompensation")]

Substitutions == [
    OrderCreated         |-> "SagaStarted",
    OrderCancelRequested |-> "CancelSaga",
    OrderAborted         |-> "RetryCompensation"]

\* The orchestrator is asked again, for ever: when to give up is its business.
Limits == [PENDING |-> ForEver, COMPENSATING |-> ForEver, COMPENSATION_FAILED |-> OperatorOnly]

SagaLimits == [
    RESERVING_INVENTORY |-> StepTries, PROCESSING_PAYMENT |-> StepTries,
    COMPENSATING |-> UndoTries, COMPENSATION_FAILED |-> OperatorOnly]

-----------------------------------------------------------------------------
(* orchestrated/saga.py: at a state, on an event, to a state, with a message.  *)
(* Its rows of `late` change nothing, as what has no row does.                 *)

Compensate == "compensate"

OrderSaga == [
    PENDING |-> [
        SagaStarted            |-> <<"RESERVING_INVENTORY", "ReserveInventory">>,
        CancelSaga             |-> <<"FAILED", "SagaFailed">>,
        RefuseSaga             |-> <<"FAILED", "SagaFailed">>],
    RESERVING_INVENTORY |-> [
        InventoryReserved      |-> <<"PROCESSING_PAYMENT", "ProcessPayment">>,
        InventoryRejected      |-> <<"FAILED", "SagaFailed">>,
        Overdue                |-> <<"RESERVING_INVENTORY", "ReserveInventory">>,
        TimedOut               |-> <<"COMPENSATING", Compensate>>,
        CancelSaga             |-> <<"COMPENSATING", Compensate>>],
    PROCESSING_PAYMENT |-> [
        PaymentProcessed       |-> <<"COMPLETED", "SagaCompleted">>,
        PaymentDeclined        |-> <<"COMPENSATING", Compensate>>,
        Overdue                |-> <<"PROCESSING_PAYMENT", "ProcessPayment">>,
        TimedOut               |-> <<"COMPENSATING", Compensate>>,
        CancelSaga             |-> <<"PROCESSING_PAYMENT", "CancelPayment">>,
        PaymentRefunded        |-> <<"COMPENSATING", Compensate>>],
    COMPENSATING |-> [
        PaymentRefunded        |-> <<"COMPENSATING", Compensate>>,
        InventoryReleased      |-> <<"FAILED", "SagaFailed">>,
        Overdue                |-> <<"COMPENSATING", Compensate>>,
        TimedOut               |-> <<"COMPENSATION_FAILED", "SagaCompensationFailed">>,
        PaymentRefundFailed    |-> <<"COMPENSATION_FAILED", "SagaCompensationFailed">>,
        InventoryReleaseFailed |-> <<"COMPENSATION_FAILED", "SagaCompensationFailed">>],
    COMPENSATION_FAILED |-> [
        RetryCompensation      |-> <<"COMPENSATING", Compensate>>,
        PaymentRefunded        |-> <<"COMPENSATING", Compensate>>,
        InventoryReleased      |-> <<"FAILED", "SagaFailed">>,
        SagaStarted            |-> <<"COMPENSATION_FAILED", "SagaCompensationFailed">>],
    COMPLETED |-> [
        SagaStarted            |-> <<"COMPLETED", "SagaCompleted">>],
    FAILED |-> [
        SagaStarted            |-> <<"FAILED", "SagaFailed">>,
        RetryCompensation      |-> <<"FAILED", "SagaFailed">>]]

\* By event: the step of which it says that there is no effect, or none any more.
NothingOf == [
    InventoryRejected |-> {"reserve"}, InventoryReleased |-> {"reserve"},
    PaymentDeclined |-> {"pay"}, PaymentRefunded |-> {"pay"}]
\* By command: the step that begins with it.
Begins == [ReserveInventory |-> {"reserve"}, ProcessPayment |-> {"pay"}]
StepOf(steps, message) == IF message \in DOMAIN steps THEN steps[message] ELSE {}

Unknown == [state |-> "NONE", begun |-> {}]

\* The saga that comes of an event, and what is told.
HandleEvent(known, event) ==
    LET starts == event \in {"SagaStarted", "CancelSaga", "RefuseSaga"}
        at == IF known = Unknown /\ starts THEN "PENDING" ELSE known.state
        row == Find(OrderSaga, at, event)
        begun == (known.begun \ StepOf(NothingOf, event)) \cup StepOf(Begins, row[2])
        undo == IF "pay" \in begun THEN "RefundPayment" ELSE "ReleaseInventory"
    IN  IF row[2] = Nothing THEN <<known, Nothing>>
        ELSE <<[state |-> row[1], begun |-> begun], IF row[2] = Compensate THEN undo ELSE row[2]>>

\* It goes on from `cause`, and waits anew if anything has changed.
Goes(o, event, cause, attempt, w) ==
    LET moved == HandleEvent(saga[o], event)
    IN  /\ saga' = [saga EXCEPT ![o] = moved[1]]
        /\ deadline' = IF moved[1] = saga[o] /\ event # "Overdue" THEN deadline
             ELSE [deadline EXCEPT !["orchestrator"][o] =
                     Armed(@, SagaLimits, moved[1].state, cause, attempt, event = "Overdue")]
        /\ wire' = Tell(w, o, cause, attempt, moved[2])
        /\ UNCHANGED <<domain, wishes>>

Orchestrator(m, event, rest) ==
    LET known == deadline["orchestrator"][m.order]
    IN  IF event = "RetryCompensation" /\ known # NoDeadline
        THEN Goes(m.order, event, known.cause, known.attempt + 1, rest)
        ELSE Goes(m.order, event, m.path, m.attempt, rest)

OrchestratorConsumes == Consumes("orchestrator", Orchestrator)

OrchestratorDeadlinePasses == \E o \in Orders :
    LET known == deadline["orchestrator"][o]
    IN  /\ Passes("orchestrator", o)
        /\ Goes(o, Passed("orchestrator", o), known.cause, known.attempt + 1, wire)
        /\ UNCHANGED <<seen, dead>>

Init == SharedInit /\ saga = [o \in Orders |-> Unknown]
Next == (SharedNext /\ UNCHANGED saga) \/ OrchestratorConsumes \/ OrchestratorDeadlinePasses
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------

SagaEndsOnce == [][\A o \in Orders : saga[o].state \in Ends => saga'[o] = saga[o]]_vars
=============================================================================
