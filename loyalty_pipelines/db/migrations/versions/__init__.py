"""One numbered revision per change; its SQL lies beside it."""
