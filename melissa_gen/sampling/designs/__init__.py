"""Space-filling and fixed designs: samplers that do not learn from training."""
