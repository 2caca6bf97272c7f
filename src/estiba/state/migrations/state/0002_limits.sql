-- The limits of each key, as a JSON object: rate, burst, concurrent, rows_per_day. Those that are left out are not its own.
ALTER TABLE api_key ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
