"""One module per event. A sensor is a pure decision and a thin tick around it."""
