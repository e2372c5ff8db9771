-- What operators ask of collection.

-- 1: it was purged by its digest, so that no lease keeps it.
ALTER TABLE departed ADD COLUMN at_once BIGINT NOT NULL DEFAULT 0;
CREATE INDEX departed_at_once ON departed (digest) WHERE at_once = 1;

-- Since when collection is paused, and why; both NULL while it is not.
ALTER TABLE catalog ADD COLUMN gc_paused_at BIGINT;
ALTER TABLE catalog ADD COLUMN gc_paused_why TEXT;

-- 1: a purge has begun with it, so that it cannot come back whole.
ALTER TABLE repository ADD COLUMN purging BIGINT NOT NULL DEFAULT 0;
