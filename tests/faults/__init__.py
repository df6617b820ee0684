"""Kills what may die, at random, and checks that nothing acknowledged is lost, doubled or run twice."""
