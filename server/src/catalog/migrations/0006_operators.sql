-- What operators ask of collection.

-- The birth of the life that no lease keeps, since somebody purged it; 0: none.
ALTER TABLE departed ADD COLUMN at_once BIGINT NOT NULL DEFAULT 0;
CREATE INDEX departed_at_once ON departed (at_once) WHERE at_once > 0;
-- The catalog's sequence when it was written.
ALTER TABLE departed ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0;

-- Since when collection is paused, and why; both NULL while it is not.
ALTER TABLE catalog ADD COLUMN gc_paused_at BIGINT;
ALTER TABLE catalog ADD COLUMN gc_paused_why TEXT;

-- 1: a purge has begun with it, so that it cannot come back whole.
ALTER TABLE repository ADD COLUMN purging BIGINT NOT NULL DEFAULT 0;
