"""What a Program means, and the evidence that its derivatives are right."""
