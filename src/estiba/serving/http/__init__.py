"""HTTP/1.1: connections, requests, deadlines, trace context and problem details."""
