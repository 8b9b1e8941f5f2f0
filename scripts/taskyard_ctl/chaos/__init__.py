"""Faults under load, counted by an oracle that takes nobody's word: see `oracle.py`."""
