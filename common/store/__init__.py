"""One database per service: domain rows, inbox, outbox and history, changed in one transaction."""
