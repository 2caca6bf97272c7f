-- How labels are compared with the answers of a version: an `AnswerForm` as JSON, empty for versions logged before.
ALTER TABLE deployment ADD COLUMN answer TEXT NOT NULL DEFAULT '';

-- Labels arrive by the id of a request.
CREATE INDEX prediction_request ON prediction (request);

-- A label that became known for a prediction, beside what the model had said; all are kept, and the newest counts.
-- `label` and `predicted` are JSON; `probability` is that of the positive class. Times are in microseconds since 1970.
CREATE TABLE feedback (
    request TEXT NOT NULL,
    row INTEGER NOT NULL,
    at BIGINT NOT NULL,
    source TEXT NOT NULL,
    label TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    predicted_at BIGINT NOT NULL,
    predicted TEXT NOT NULL,
    probability DOUBLE PRECISION,
    newest INTEGER NOT NULL,
    PRIMARY KEY (request, row, at)
);

CREATE INDEX feedback_quality ON feedback (model, predicted_at) WHERE newest = 1;

CREATE INDEX feedback_predicted ON feedback (predicted_at);
