"""Tests of the notebook as an Automerge document."""
