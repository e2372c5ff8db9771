-- Deleted rows are many, and stay for a while: lists have indexes without them.

DROP INDEX manifest_subject;
DROP INDEX manifest_subject_type;
CREATE INDEX manifest_subject ON manifest (repository, subject, digest, size)
    WHERE subject IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX manifest_subject_type ON manifest
    (repository, subject, artifact_type, digest, size)
    WHERE subject IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tag_live ON tag (repository, deleted_at, name);

-- Which tags a manifest has (verb.rs says why by its digest alone).
DROP INDEX tag_manifest;
CREATE INDEX tag_of_manifest ON tag (manifest);

-- By digest first: then it also says which repositories have a blob. The keys
-- are random, and a second index would double what a push writes.
CREATE TABLE link_by_digest (
    repository BIGINT NOT NULL REFERENCES repository (id),
    digest     {blob} NOT NULL,
    size       BIGINT NOT NULL CHECK (size >= 0),
    birth      BIGINT,
    linked_at  BIGINT NOT NULL,
    PRIMARY KEY (digest, repository)
) {clustered};
INSERT INTO link_by_digest (repository, digest, size, birth, linked_at)
    SELECT repository, digest, size, birth, linked_at FROM link;
DROP TABLE link;
ALTER TABLE link_by_digest RENAME TO link;

-- Links that were deleted. They are kept apart, so that a release that knows
-- nothing of them sees what is there, and pushes what is not.
CREATE TABLE unlinked (
    repository BIGINT NOT NULL REFERENCES repository (id),
    digest     {blob} NOT NULL,
    size       BIGINT NOT NULL CHECK (size >= 0),
    deleted_at BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
) {clustered};
