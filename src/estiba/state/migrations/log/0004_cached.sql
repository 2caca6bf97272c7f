-- 1 where the answer was known before, and the model did not run.
ALTER TABLE prediction ADD COLUMN cached INTEGER NOT NULL DEFAULT 0;
