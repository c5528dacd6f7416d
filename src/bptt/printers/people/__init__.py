"""Derivations for people: which lines, in which words and signs; plain text, LaTeX, Markdown."""
