"""The master: holds the queue, journals it, serves both dialects."""
