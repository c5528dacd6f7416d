"""The intermediate representation: what a Program, an op and a Plan are."""
