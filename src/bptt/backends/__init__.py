"""What runs a Plan: one folder a backend."""
