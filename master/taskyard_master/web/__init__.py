"""The dashboard: pages, JSON, metrics and health, beside the master's port and in the same event loop."""
