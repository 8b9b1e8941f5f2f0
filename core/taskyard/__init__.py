"""Run a Python function over a long list of inputs on many machines."""

__version__ = "0.1.0"
