"""Measurements: this program beside the programs that it replaces. Not installed, not part of the tests."""
