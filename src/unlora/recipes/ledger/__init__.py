"""Jobs of the ledger: begin one, add a request, look at all, take one back, verify."""
