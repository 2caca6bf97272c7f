-- A version of a model that answered. `fields` is a JSON array of field names, in the order of a logged input.
CREATE TABLE deployment (
    digest TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (digest, version)
);

-- A row of a request that was answered. `at` is in microseconds since 1970, `ms` the time of its batch in the model.
-- `input` is a MessagePack array in the order of `fields`, `output` a MessagePack map of the answer.
CREATE TABLE prediction (
    at BIGINT NOT NULL,
    request TEXT NOT NULL,
    row INTEGER NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    caller TEXT NOT NULL,
    trace TEXT NOT NULL,
    ms REAL NOT NULL,
    input BLOB NOT NULL,
    output BLOB NOT NULL
);

CREATE INDEX prediction_at ON prediction (at);
CREATE INDEX prediction_model ON prediction (model, at);
