"""What people train. The first task is a character-level language model (`bptt train`)."""
