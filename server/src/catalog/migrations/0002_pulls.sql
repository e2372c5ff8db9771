-- Pulls: counted for tags too, and how far the counts can be believed.

ALTER TABLE tag ADD COLUMN last_pulled BIGINT;
ALTER TABLE tag ADD COLUMN pulls BIGINT NOT NULL DEFAULT 0;

-- Counts of pulls were lost at this time: whatever is there counts as pulled
-- then, or later if its row says so.
ALTER TABLE catalog ADD COLUMN pulls_floor BIGINT;
-- Which opening of the store ended with all its pulls written.
ALTER TABLE catalog ADD COLUMN pulls_through BIGINT;
