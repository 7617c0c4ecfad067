"""Metrics: pure functions of arrays or texts, independent of engines, tasks, files and models."""
