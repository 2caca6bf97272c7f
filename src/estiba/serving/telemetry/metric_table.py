"""The metrics of a server: names, kinds, labels and help texts, in the order in which they are rendered."""

from __future__ import annotations

from typing import Literal, NamedTuple

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 10240.0, 102400.0)


class Metric(NamedTuple):
    """The definition of a metric.

    Args:
        labels: names of its labels.
        buckets: upper bounds of a histogram.
        aggregate: how the values of several workers combine; `max` for a gauge that is the same in every worker.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aggregate: Literal["sum", "max"] = "sum"


METRICS = (
    Metric(
        "estiba_requests_total", "counter", "Prediction requests answered.",
        ("model", "version", "variant", "protocol", "code"),
    ),
    Metric(
        "estiba_request_duration_seconds", "histogram", "From the last byte of the request to the answer.",
        ("model", "version", "protocol"), SECONDS,
    ),
    Metric(
        "estiba_predict_duration_seconds", "histogram", "Time in the model, per batch.", ("model", "version"), SECONDS
    ),
    Metric("estiba_batch_rows", "histogram", "Rows that went to the model at once.", ("model", "version"), ROWS),
    Metric("estiba_rows_total", "counter", "Rows predicted.", ("model", "version")),
    Metric("estiba_queue_rows", "gauge", "Rows that wait for a model.", ("model",)),
    Metric("estiba_connections", "gauge", "Open connections of clients, as counted twice a second."),
    Metric("estiba_buffered_bytes", "gauge", "Bodies and responses held for clients, as counted twice a second."),
    Metric("estiba_connections_refused_total", "counter", "Connections refused, as the server held as many as it can."),
    Metric("estiba_log_lines_skipped_total", "counter", "Lines of requests left out of the log, over its limit."),
    Metric("estiba_spans_dropped_total", "counter", "Spans that were not sent, by requests.", ("reason",)),
    Metric(
        "estiba_shadow_rows_total", "counter", "Rows copied for a candidate whose answers nobody gets.",
        ("model", "version", "outcome"),
    ),
    Metric(
        "estiba_shadow_duration_seconds", "histogram", "Time in the candidate, per run of copies.",
        ("model", "version"), SECONDS,
    ),
    Metric("estiba_requests_in_flight", "gauge", "Prediction requests being answered now.", ("model",)),
    Metric(
        "estiba_limited_total", "counter", "Requests refused by a limit of a key or a model.",
        ("model", "key", "policy"),
    ),
    Metric("estiba_limits_store_failing", "gauge", "Workers that cannot reach the store of the limits now."),
    Metric(
        "estiba_limits_without_store_total", "counter", "Requests with limits while their store could not be reached.",
        ("decision",),
    ),
    Metric("estiba_cache_requests_total", "counter", "Requests, by what the cache knew.", ("model", "result")),
    Metric("estiba_cache_bytes", "gauge", "Memory of the cache's answers."),
    Metric("estiba_cache_entries", "gauge", "Rows whose answers are in memory."),
    Metric("estiba_cache_evictions_total", "counter", "Answers that left memory to make room for others."),
    Metric("estiba_cache_store_failing", "gauge", "Workers that cannot reach the store of the cache now."),
    Metric("estiba_rejected_total", "counter", "Requests refused before the model.", ("model", "reason")),
    Metric(
        "estiba_unseen_category_total", "counter", "Values that the model never saw in training.", ("model", "feature")
    ),
    Metric(
        "estiba_model_loaded", "gauge", "1 while a version is being served.", ("model", "version"), aggregate="max"
    ),
    Metric(
        "estiba_model_load_duration_seconds", "gauge", "Reading, verifying and proving a version.",
        ("model", "version"), aggregate="max",
    ),
    Metric(
        "estiba_model_info", "gauge", "What is being served; always 1.",
        ("model", "version", "digest", "framework", "engine"), aggregate="max",
    ),
    Metric(
        "estiba_parity_max_abs_error", "gauge", "Largest difference to training over the golden rows, at load.",
        ("model", "version"), aggregate="max",
    ),
    Metric("estiba_workers", "gauge", "Worker processes.", ("state",)),
    Metric("estiba_worker_restarts_total", "counter", "Workers replaced.", ("reason",)),
    Metric("estiba_swap_failures_total", "counter", "Newer versions that were not taken into service.", ("model",)),
    Metric("estiba_log_rows_total", "counter", "Rows for the log of predictions.", ("outcome",)),
    Metric("estiba_log_failing", "gauge", "Workers that cannot write the log of predictions now."),
    Metric("estiba_certificate_expiry_seconds", "gauge", "When the certificate expires, in seconds since 1970."),
    Metric(
        "estiba_drift_statistic", "gauge", "Difference to the reference in the last window, 0 to 1.",
        ("model", "field", "statistic"), aggregate="max",
    ),
    Metric(
        "estiba_drift_detected", "gauge", "1 while a field or an output drifts.", ("model", "field"), aggregate="max"
    ),
    Metric("estiba_drift_window_rows", "gauge", "Rows of the last window of drift.", ("model",), aggregate="max"),
    Metric(
        "estiba_drift_silent", "gauge", "1 while a model gets no rows in an hour that had 100 a week ago.",
        ("model",), aggregate="max",
    ),
    Metric("estiba_drift_rows_total", "counter", "Rows for the windows of drift.", ("model", "outcome")),
    Metric("estiba_policy_age_seconds", "gauge", "Time since the policies, such as keys, were last read."),
    Metric(
        "estiba_build_info", "gauge", "The server itself; always 1.", ("version", "python"), aggregate="max"
    ),
    Metric("estiba_cpu_periods_total", "counter", "Periods of the cgroup's processor quota."),
    Metric("estiba_cpu_throttled_periods_total", "counter", "Periods in which the cgroup's processor quota ran out."),
    Metric("estiba_cpu_throttled_seconds_total", "counter", "Time that processes waited for the cgroup's next period."),
    Metric("process_open_fds", "gauge", "Open files and sockets of all processes."),
    Metric("process_start_time_seconds", "gauge", "When the oldest process started, in seconds since 1970."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of all workers."),
    Metric("process_cpu_seconds_total", "counter", "Processor time of all workers, user and system."),
)  # fmt: skip
