-------------------------------- MODULE Saga --------------------------------
(* What both wirings share: the deciders of Order, Inventory and Payment, the  *)
(* delivery of records, deadlines, faults, and what must hold. A wiring        *)
(* extends this with its tables; see Orchestrated.tla and Choreographed.tla.   *)
(* README.md tells which operator is which function of the code.               *)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS
    \* The case: each order wants one piece of the same item.
    Orders, Stock,
    Declined,       \* the orders whose payment is above the limit
    Cancelled,      \* the orders whose customers may want out, at any time
    \* The wiring, as data; the module that extends this one defines it.
    Hears,          \* by message: who hears it, on which topic, as which command
    Instead,        \* by message: the one that is told in its place
    OrderLimits,    \* by status: how often the Order service asks before it gives up
    \* Protections, each of which can be switched off.
    Inbox,          \* what was seen before is dropped
    Attempts,       \* what is told again is no duplicate: it has a higher attempt
    StoredOutcomes, \* a repeated step is answered from its row, not done again
    Tombstones,     \* an undo of nothing leaves a row
    KeyOrdering,    \* what is told of an order on a topic is heard in that order
    Deadlines,      \* who waits in vain asks again
    \* How much goes wrong, at most.
    MaxLost,        \* records that never arrive
    MaxAgain,       \* records that come once more: a crash, or a replay
    MaxBroken,      \* commands that can't be processed, and are given up
    MaxEarly,       \* deadlines that pass while something is still under way
    MaxOperator,    \* times that an operator has a compensation tried again
    StepTries, UndoTries, MaxAttempt

VARIABLES
    order,          \* by order: its status
    stock,          \* the pieces that nobody holds
    reservation,    \* by order: the status of its claim on the stock
    payment,        \* by order: the status of its payment
    charges,        \* by order: how often its customer was charged
    wire,           \* by order and channel: the records that are not consumed yet
    seen,           \* the inboxes of all services: a record has but one hearer
    dead,           \* the dead letters that may be replayed
    deadline,       \* by service and order: what is waited for
    wishes,         \* the orders that may still be cancelled
    left            \* how much may still go wrong

domain == <<order, stock, reservation, payment, charges>>
shared == <<domain, wire, seen, dead, deadline, wishes, left>>

-----------------------------------------------------------------------------
(* Records. An id is derived from the cause and the type, so a record's id     *)
(* *is* the path of types that led to it; with its attempt it is its own       *)
(* inbox key. A channel is one topic as one service hears it.                  *)

Nothing == "nothing"
NoCause == <<>>

Type(m) == m.path[Len(m.path)]
Channel(m) == <<Hears[Type(m)].service, Hears[Type(m)].topic>>
Channels == {<<Hears[type].service, Hears[type].topic>> : type \in DOMAIN Hears}

Record(o, cause, attempt, message) ==
    LET told == IF message \in DOMAIN Instead THEN Instead[message] ELSE message
    IN  [order |-> o, path |-> Append(cause, told), attempt |-> attempt]

\* Tell `message` of order o because of `cause`; what nobody hears is left out.
Tell(w, o, cause, attempt, message) ==
    LET m == Record(o, cause, attempt, message)
    IN  IF Type(m) \in DOMAIN Hears THEN [w EXCEPT ![o][Channel(m)] = Append(@, m)] ELSE w

Without(records, i) == SubSeq(records, 1, i - 1) \o SubSeq(records, i + 1, Len(records))
Consumable(records) == {i \in DOMAIN records : KeyOrdering => i = 1}
Idle(o) == \A c \in Channels : wire[o][c] = <<>>

Key(m) == IF Attempts THEN m ELSE [m EXCEPT !.attempt = 1]
WasSeen(m) == \E old \in seen : Key(old) = Key(m)

-----------------------------------------------------------------------------
(* Deadlines: what is outstanding, and how often it has been asked for.        *)

Waiting == {"order", "orchestrator"}
ForEver == 0
OperatorOnly == -1      \* nobody asks again by himself
NoDeadline == [cause |-> NoCause, attempt |-> 0, tries |-> 0, limit |-> OperatorOnly]

\* The deadline for what is waited for at `status`, in place of the `old` one.
Armed(old, limits, status, cause, attempt, again) ==
    IF status \notin DOMAIN limits THEN NoDeadline
    ELSE [cause |-> cause, attempt |-> attempt, tries |-> IF again THEN old.tries + 1 ELSE 1,
          limit |-> limits[status]]

MayPass(service, o) ==
    /\ Deadlines
    /\ deadline[service][o].limit # OperatorOnly
    /\ deadline[service][o].attempt < MaxAttempt

\* It passes when nothing moves any more, or some few times before that.
\* The Order service is the more patient one.
Passes(service, o) ==
    /\ MayPass(service, o)
    /\ \/ Idle(o) /\ (service = "order" => ~MayPass("orchestrator", o)) /\ UNCHANGED left
       \/ left.early > 0 /\ left' = [left EXCEPT !.early = @ - 1]

\* What comes of it: the last time of asking was the last, or there is another.
Passed(service, o) ==
    LET known == deadline[service][o]
    IN  IF known.limit # ForEver /\ known.tries >= known.limit THEN "TimedOut" ELSE "Overdue"

-----------------------------------------------------------------------------
(* The deciders: a row and a command in, the new row and a message out.        *)

Find(table, state, command) ==
    IF state \in DOMAIN table /\ command \in DOMAIN table[state]
    THEN table[state][command] ELSE <<state, Nothing>>

Moves == [
    PENDING |-> [
        CancelOrder       |-> <<"PENDING", "OrderCancelRequested">>,
        CompleteOrder     |-> <<"COMPLETED", "OrderCompleted">>,
        FailOrder         |-> <<"FAILED", "OrderFailed">>,
        Overdue           |-> <<"PENDING", "OrderCreated">>,
        TimedOut          |-> <<"COMPENSATING", "OrderAborted">>,
        FailCompensation  |-> <<"COMPENSATION_FAILED", "OrderCompensationFailed">>],
    COMPENSATING |-> [
        FailOrder         |-> <<"FAILED", "OrderFailed">>,
        Overdue           |-> <<"COMPENSATING", "OrderAborted">>,
        TimedOut          |-> <<"COMPENSATION_FAILED", "OrderCompensationFailed">>,
        FailCompensation  |-> <<"COMPENSATION_FAILED", "OrderCompensationFailed">>],
    COMPENSATION_FAILED |-> [
        FailOrder         |-> <<"FAILED", "OrderFailed">>,
        RetryCompensation |-> <<"COMPENSATING", "OrderAborted">>]]

OrderDecides(status, command) == Find(Moves, status, command)

\* In: the free pieces and a claim; out: both, and what is told.
InventoryDecides(free, row, command) ==
    CASE command = "ReserveInventory" ->
            CASE row \in {"REJECTED", "RELEASED"}    -> <<free, row, "InventoryRejected">>
              [] row = "RESERVED" /\ StoredOutcomes  -> <<free, row, "InventoryReserved">>
              [] OTHER -> IF free < 1 THEN <<free, "REJECTED", "InventoryRejected">>
                                      ELSE <<free - 1, "RESERVED", "InventoryReserved">>
      [] command = "ReleaseInventory" ->
            CASE row = "NONE"     -> <<free, IF Tombstones THEN "RELEASED" ELSE row, "InventoryReleased">>
              [] row = "RESERVED" -> <<free + 1, "RELEASED", "InventoryReleased">>
              [] OTHER            -> <<free, row, "InventoryReleased">>
      [] command = "RefuseReservation" ->
            CASE row = "NONE"     -> <<free, "REJECTED", "InventoryRejected">>
              [] row = "RESERVED" -> <<free, row, Nothing>>
              [] OTHER            -> <<free, row, "InventoryRejected">>
      [] command = "ReportReleaseFailure" ->
            <<free, row, IF row = "RELEASED" THEN Nothing ELSE "InventoryReleaseFailed">>

Outcome(row) == IF row = "CHARGED" THEN "PaymentProcessed" ELSE "PaymentDeclined"

PaymentDecides(o, row, command) ==
    CASE command = "ProcessPayment" ->
            LET new == IF o \in Declined THEN "DECLINED" ELSE "CHARGED"
            IN  IF row = "NONE" THEN <<new, Outcome(new)>> ELSE <<row, Outcome(row)>>
      [] command = "RefundPayment" \/ (command = "CancelPayment" /\ row \in {"NONE", "REFUNDED"}) ->
            CASE row = "NONE"    -> <<IF Tombstones THEN "REFUNDED" ELSE row, "PaymentRefunded">>
              [] row = "CHARGED" -> <<"REFUNDED", "PaymentRefunded">>
              [] OTHER           -> <<row, "PaymentRefunded">>
      [] command = "CancelPayment" -> <<row, Outcome(row)>>
      [] command = "RefusePayment" ->
            LET new == IF row = "NONE" THEN "DECLINED" ELSE row IN <<new, Outcome(new)>>
      [] command = "ReportRefundFailure" ->
            <<row, IF row = "REFUNDED" THEN Nothing ELSE "PaymentRefundFailed">>

\* What is decided in place of a command that can't be processed.
GivesUpWith == [
    ReserveInventory |-> "RefuseReservation", ReleaseInventory |-> "ReportReleaseFailure",
    ProcessPayment   |-> "RefusePayment",     RefundPayment    |-> "ReportRefundFailure",
    SagaStarted      |-> "RefuseSaga"]

-----------------------------------------------------------------------------
(* The services. Each takes record m as a command; `rest` is the wire without  *)
(* it. Rows, inbox, outbox and deadline change in one step: one transaction.   *)

Order(m, command, rest) ==
    LET o == m.order
        moved == OrderDecides(order[o], command)
    IN  /\ order' = [order EXCEPT ![o] = moved[1]]
        /\ deadline' = IF moved[1] = order[o] THEN deadline
             ELSE [deadline EXCEPT !["order"][o] =
                     Armed(@, OrderLimits, moved[1], m.path, m.attempt, FALSE)]
        /\ wire' = Tell(rest, o, m.path, m.attempt, moved[2])
        /\ UNCHANGED <<stock, reservation, payment, charges, wishes>>

Inventory(m, command, rest) ==
    LET o == m.order
        decided == InventoryDecides(stock, reservation[o], command)
    IN  /\ stock' = decided[1]
        /\ reservation' = [reservation EXCEPT ![o] = decided[2]]
        /\ wire' = Tell(rest, o, m.path, m.attempt, decided[3])
        /\ UNCHANGED <<order, payment, charges, deadline, wishes>>

Payment(m, command, rest) ==
    LET o == m.order
        decided == PaymentDecides(o, payment[o], command)
        repeats == command = "ProcessPayment" /\ payment[o] = "CHARGED" /\ ~StoredOutcomes
        charged == repeats \/ (payment[o] # "CHARGED" /\ decided[1] = "CHARGED")
    IN  /\ payment' = [payment EXCEPT ![o] = decided[1]]
        /\ charges' = IF charged THEN [charges EXCEPT ![o] = @ + 1] ELSE charges
        /\ wire' = Tell(rest, o, m.path, m.attempt, decided[2])
        /\ UNCHANGED <<order, stock, reservation, deadline, wishes>>

IsDuplicate(m) == Inbox /\ WasSeen(m)

\* A service takes a record of one of its channels: decides it, or gives it up.
Consumes(service, Decides(_, _, _)) ==
    \E o \in Orders, c \in {c \in Channels : c[1] = service} :
        \E i \in Consumable(wire[o][c]) :
            LET m == wire[o][c][i]
                rest == [wire EXCEPT ![o][c] = Without(@, i)]
                command == Hears[Type(m)].command
            IN  /\ ~IsDuplicate(m)
                /\ \/ /\ Decides(m, command, rest)
                      /\ seen' = seen \cup {m}
                      /\ UNCHANGED <<dead, left>>
                   \/ /\ left.broken > 0 /\ command \in DOMAIN GivesUpWith
                      /\ Decides(m, GivesUpWith[command], rest)
                      /\ dead' = dead \cup {m}
                      /\ left' = [left EXCEPT !.broken = @ - 1]
                      /\ UNCHANGED seen

DuplicateIsDropped == \E o \in Orders, c \in Channels : \E i \in Consumable(wire[o][c]) :
    /\ IsDuplicate(wire[o][c][i])
    /\ wire' = [wire EXCEPT ![o][c] = Without(@, i)]
    /\ UNCHANGED <<domain, seen, dead, deadline, wishes, left>>

OrderConsumes == Consumes("order", Order)
InventoryConsumes == Consumes("inventory", Inventory)
PaymentConsumes == Consumes("payment", Payment)

\* The Order service goes on with what is outstanding.
Resumes(o, command) ==
    LET known == deadline["order"][o]
        moved == OrderDecides(order[o], command)
    IN  /\ order' = [order EXCEPT ![o] = moved[1]]
        /\ deadline' = [deadline EXCEPT !["order"][o] =
             Armed(@, OrderLimits, moved[1], known.cause, known.attempt + 1, command = "Overdue")]
        /\ wire' = Tell(wire, o, known.cause, known.attempt + 1, moved[2])
        /\ UNCHANGED <<stock, reservation, payment, charges, seen, dead, wishes>>

OrderDeadlinePasses == \E o \in Orders :
    Passes("order", o) /\ Resumes(o, Passed("order", o))

OperatorRetries == \E o \in Orders :
    /\ left.operator > 0 /\ order[o] = "COMPENSATION_FAILED"
    /\ left' = [left EXCEPT !.operator = @ - 1]
    /\ Resumes(o, "RetryCompensation")

CustomerCancels == \E o \in wishes :
    /\ order[o] = "PENDING"
    /\ wishes' = wishes \ {o}
    /\ wire' = Tell(wire, o, NoCause, 1, OrderDecides(order[o], "CancelOrder")[2])
    /\ UNCHANGED <<domain, seen, dead, deadline, left>>

-----------------------------------------------------------------------------
(* What goes wrong between the services.                                       *)

RecordIsLost == \E o \in Orders, c \in Channels :
    /\ left.lost > 0 /\ wire[o][c] # <<>>
    /\ wire' = [wire EXCEPT ![o][c] = Tail(@)]
    /\ left' = [left EXCEPT !.lost = @ - 1]
    /\ UNCHANGED <<domain, seen, dead, deadline, wishes>>

\* A crash before the offset is committed: the record comes before all others.
RecordIsRedelivered == \E m \in seen :
    /\ left.again > 0
    /\ wire' = [wire EXCEPT ![m.order][Channel(m)] = <<m>> \o @]
    /\ left' = [left EXCEPT !.again = @ - 1]
    /\ UNCHANGED <<domain, seen, dead, deadline, wishes>>

\* A crash before the acknowledgement, or a replay: it comes behind all others.
RecordIsPublishedAgain == \E m \in seen :
    /\ left.again > 0
    /\ wire' = [wire EXCEPT ![m.order][Channel(m)] = Append(@, m)]
    /\ left' = [left EXCEPT !.again = @ - 1]
    /\ UNCHANGED <<domain, seen, dead, deadline, wishes>>

DeadLetterIsReplayed == \E m \in dead :
    /\ dead' = dead \ {m}
    /\ wire' = [wire EXCEPT ![m.order][Channel(m)] = Append(@, m)]
    /\ UNCHANGED <<domain, seen, deadline, wishes, left>>

SharedInit ==
    /\ order = [o \in Orders |-> "PENDING"]
    /\ stock = Stock
    /\ reservation = [o \in Orders |-> "NONE"]
    /\ payment = [o \in Orders |-> "NONE"]
    /\ charges = [o \in Orders |-> 0]
    /\ wire = [o \in Orders |-> [c \in Channels |->
         LET placed == Record(o, NoCause, 1, "OrderCreated")
         IN  IF c = Channel(placed) THEN <<placed>> ELSE <<>>]]
    /\ seen = {} /\ dead = {}
    /\ deadline = [service \in Waiting |-> [o \in Orders |->
         IF service = "order" THEN Armed(NoDeadline, OrderLimits, "PENDING", NoCause, 1, FALSE)
         ELSE NoDeadline]]
    /\ wishes = Cancelled
    /\ left = [lost |-> MaxLost, again |-> MaxAgain, broken |-> MaxBroken,
               early |-> MaxEarly, operator |-> MaxOperator]

SharedNext ==
    \/ OrderConsumes \/ InventoryConsumes \/ PaymentConsumes \/ DuplicateIsDropped
    \/ OrderDeadlinePasses \/ OperatorRetries \/ CustomerCancels
    \/ RecordIsLost \/ RecordIsRedelivered \/ RecordIsPublishedAgain \/ DeadLetterIsReplayed

-----------------------------------------------------------------------------
(* What must hold, by the names of compare/checks/invariants.py.               *)

Ends == {"COMPLETED", "FAILED"}
Count(rows, status) == Cardinality({o \in Orders : rows[o] = status})

StockIsNeverNegative == stock >= 0
StockIsConserved == stock + Count(reservation, "RESERVED") = Stock
ChargedOnce == \A o \in Orders : charges[o] <= 1
FailedHoldsNothing == \A o \in Orders :
    order[o] = "FAILED" => reservation[o] # "RESERVED" /\ payment[o] # "CHARGED"
CompletedMeansPaidAndHeld == \A o \in Orders :
    order[o] = "COMPLETED" => reservation[o] = "RESERVED" /\ payment[o] = "CHARGED"
EndsOnce == [][\A o \in Orders : order[o] \in Ends => order'[o] = order[o]]_shared

\* Nothing moves any more: nothing is under way, and no deadline can pass.
Quiet == \A o \in Orders : Idle(o) /\ \A service \in Waiting : ~MayPass(service, o)
EveryOrderEnds == Quiet => \A o \in Orders : order[o] \in Ends \cup {"COMPENSATION_FAILED"}
\* An operator is needed only if a command could not be processed: the tries
\* for an undo are to be more than what may go wrong else.
StuckOnlyIfBroken == Quiet /\ left.broken = MaxBroken =>
    \A o \in Orders : order[o] # "COMPENSATION_FAILED"
=============================================================================
