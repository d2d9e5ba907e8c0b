"""The business: pure deciders that no clock, random number, database or broker can reach.

A decider answers every command in every state (it is *total*), so that a duplicate, a late or an early
command is a case of the domain and not of the plumbing. See Jérémie Chassaing, "Functional Event Sourcing
Decider" (2021).
"""
