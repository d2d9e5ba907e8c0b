"""Simulated histories: the services' own core over a simulated broker and a clock that only moves when told.

`world` is what there is and what may happen next, `drive` lets one history happen, `chance` draws one from a
seed, `sweep` goes through all of them, `protections` takes protections away, and `shrink` finds the smallest
history that still goes wrong.

Sources: FoundationDB's deterministic simulation (Zhou et al., "FoundationDB: A Distributed Unbundled
Transactional Key Value Store", SIGMOD 2021, section 4); Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input" (2002).
"""
