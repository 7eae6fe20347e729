"""Measurements: this program beside the ones that users have now. Not installed, not part of the tests."""
