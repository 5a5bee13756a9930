"""What a model is worth: data, metrics, statistics, engines, scoring, latency; each room imports only earlier ones."""
