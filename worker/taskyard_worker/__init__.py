"""The worker: leases tasks, runs them in slots, settles their outcomes."""
