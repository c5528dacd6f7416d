"""The command `bptt`: one module a verb. What they share is how a CELL is found."""
