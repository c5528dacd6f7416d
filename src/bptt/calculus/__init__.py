"""Passes on Programs: derivatives, rules, rewrites, the schedule. Pure functions, named by verbs."""
