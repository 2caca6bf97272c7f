"""Configuration of Prometheus, Alertmanager, Grafana and Fluent Bit, rendered from a plan."""
