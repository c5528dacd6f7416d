"""Programs and Plans as text: a language is one file."""
