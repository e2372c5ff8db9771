-- Collection: what a purge takes away for good, and what it leaves behind.

-- When the manifest lost a tag last, in time of the catalog.
ALTER TABLE manifest ADD COLUMN untagged_at BIGINT;
-- When an index that listed it, or the manifest it is about, was deleted that
-- has been purged since.
ALTER TABLE manifest ADD COLUMN orphaned_at BIGINT;

CREATE INDEX repository_deleted ON repository (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX manifest_deleted ON manifest (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX manifest_orphaned ON manifest (repository, digest)
    WHERE orphaned_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tag_deleted ON tag (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX unlinked_deleted ON unlinked (deleted_at);
-- Which indexes list a manifest.
CREATE INDEX edge_child ON edge (repository, digest) WHERE kind = 3;

-- What purged rows named: it tells why a blob is garbage, until it is gone.
CREATE TABLE departed (
    digest     {blob} NOT NULL PRIMARY KEY,
    -- Where, and which manifest named it; empty for a blob that was deleted by
    -- its own digest.
    repository {text} NOT NULL,
    manifest   {blob} NOT NULL,
    -- When that was deleted, and when it was purged.
    deleted_at BIGINT NOT NULL,
    purged_at  BIGINT NOT NULL
) {clustered};
CREATE INDEX departed_purged ON departed (purged_at);

-- The latest time that is believed; rows get none before it, and purges go by it.
ALTER TABLE catalog ADD COLUMN clock BIGINT;
-- It is not known before this when a manifest lost a tag.
ALTER TABLE catalog ADD COLUMN untagged_floor BIGINT;
-- How many blobs died without an explanation since then.
ALTER TABLE catalog ADD COLUMN unexplained_since BIGINT;
ALTER TABLE catalog ADD COLUMN unexplained BIGINT NOT NULL DEFAULT 0;
-- Why nothing is collected until somebody says so.
ALTER TABLE catalog ADD COLUMN gc_hold TEXT;
