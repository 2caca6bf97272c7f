-- Counts changes of everything that servers follow, so that they read again only when something has changed.
CREATE TABLE change (generation BIGINT NOT NULL);
INSERT INTO change VALUES (1);

-- API keys. Only the SHA-256 hash of a key is kept. Times are in seconds since 1970. Roles and models are JSON arrays.
CREATE TABLE api_key (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    roles TEXT NOT NULL,
    models TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT
);

-- The name of a key that was revoked may be given again.
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked IS NULL;
