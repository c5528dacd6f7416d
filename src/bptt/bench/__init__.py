"""How fast a layer runs beside others: what is compared, a gate that must be passed, a runner."""
