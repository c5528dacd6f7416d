"""Passes on Programs: derivatives, rules, rewrites, the schedule. Functions named by verbs."""
