"""One module a peer, each set up as its own documentation advises.

A module has TASKS, how many no-op tasks it is given in one round (some seconds' worth), and
`running(workers, folder)`, a context manager that gives an object with `many(inputs)` and
`one(n)`, as `taskyard_ctl.measuring.Side` says. The function is `work.square` for all of them.
"""
