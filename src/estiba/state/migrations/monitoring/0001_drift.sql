-- What a version's windows are compared with, as JSON. Times are in microseconds since 1970.
CREATE TABLE drift_reference (
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    model TEXT NOT NULL,
    reference TEXT NOT NULL,
    PRIMARY KEY (digest, version)
);

-- Rows of a window that is not closed yet: counts of a worker in consecutive slices, packed.
CREATE TABLE drift_slice (
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    model TEXT NOT NULL,
    at BIGINT NOT NULL,
    count BIGINT NOT NULL,
    dropped BIGINT NOT NULL,
    counts BLOB NOT NULL
);

CREATE INDEX drift_slice_at ON drift_slice (digest, version, at);

-- A window that is closed: the comparisons and states of its parts, and its counts, packed.
CREATE TABLE drift_window (
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    model TEXT NOT NULL,
    end_at BIGINT NOT NULL,
    result BLOB NOT NULL,
    counts BLOB NOT NULL,
    PRIMARY KEY (digest, version, end_at)
);

CREATE INDEX drift_window_model ON drift_window (model, end_at);

-- Rows of a model by hour since 1970, by which silence is noticed.
CREATE TABLE drift_hour (
    model TEXT NOT NULL,
    hour BIGINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (model, hour)
);

-- The server that closes windows, until a time.
CREATE TABLE drift_lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until BIGINT NOT NULL);
