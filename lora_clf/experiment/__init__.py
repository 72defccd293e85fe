"""Doing the work of a comparison: each run in a process of its own, kept at once, some at a time."""
