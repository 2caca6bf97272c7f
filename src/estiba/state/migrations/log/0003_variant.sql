-- The target of the model's route that answered; empty without a route, `shadow` for a copy that nobody got an answer to.
ALTER TABLE prediction ADD COLUMN variant TEXT NOT NULL DEFAULT '';
