--------------------------- MODULE Choreographed ---------------------------
(* The choreographed wiring: services react to each other's events.           *)
EXTENDS Saga

On(service, topic, command) == [service |-> service, topic |-> topic, command |-> command]

Wiring == [
    OrderCreated           |-> On("inventory", "orders.events", "ReserveInventory"),
    PaymentDeclined        |-> On("inventory", "payments.events", "ReleaseInventory"),
    PaymentRefunded        |-> On("inventory", "payments.events", "ReleaseInventory"),

    InventoryReserved      |-> On("payment", "inventory.events", "ProcessPayment"),
    OrderCancelRequested   |-> On("payment", "orders.events", "CancelPayment"),
    OrderAborted           |-> On("payment", "orders.events", "RefundPayment"),

    PaymentProcessed       |-> On("order", "payments.events", "CompleteOrder"),
    InventoryRejected      |-> On("order", "inventory.events", "FailOrder"),
    InventoryReleased      |-> On("order", "inventory.events", "FailOrder"),
    InventoryReleaseFailed |-> On("order", "inventory.events", "FailCompensation"),
    PaymentRefundFailed    |-> On("order", "payments.events", "FailCompensation")]

Substitutions == <<>>   \* nothing is told in another's place

Limits == [PENDING |-> StepTries, COMPENSATING |-> UndoTries, COMPENSATION_FAILED |-> OperatorOnly]

Init == SharedInit
Next == SharedNext
Spec == Init /\ [][Next]_shared
=============================================================================
