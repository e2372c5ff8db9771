-- Names: repositories, manifests and what they refer to, tags, links.
--
-- One text for both databases. Words in braces differ between them and are
-- replaced when the migration runs (schema.rs): {id}, {ordinal}, {blob},
-- {text} for texts that are listed in byte order, {clustered}.
--
-- A row with deleted_at is hidden and lives until a purge removes it. Times
-- are milliseconds since 1970 and order nothing.

CREATE TABLE catalog (
    one         BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id          {blob} NOT NULL CHECK (length(id) = 16),
    -- The last number given to a change.
    sequence    BIGINT NOT NULL,
    -- The last migration that was applied.
    schema      BIGINT NOT NULL,
    -- A release must know this migration to open the catalog.
    needs       BIGINT NOT NULL CHECK (needs <= schema)
);

CREATE TABLE repository (
    id           {id},
    name         {text} NOT NULL,
    created_at   BIGINT NOT NULL,
    deleted_at   BIGINT,
    -- Totals over every row that exists, hidden ones too (totals.rs).
    manifests    BIGINT NOT NULL DEFAULT 0 CHECK (manifests >= 0),
    manifest_sum BIGINT NOT NULL DEFAULT 0,
    edges        BIGINT NOT NULL DEFAULT 0 CHECK (edges >= 0),
    edge_sum     BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX repository_live ON repository (name) WHERE deleted_at IS NULL;

CREATE TABLE manifest (
    repository    BIGINT NOT NULL REFERENCES repository (id),
    digest        {blob} NOT NULL,
    media_type    TEXT NOT NULL,
    artifact_type {text},
    size          BIGINT NOT NULL CHECK (size >= 0),
    subject       {blob},
    -- A JSON object, for lists of referrers.
    annotations   TEXT,
    pushed_at     BIGINT NOT NULL,
    deleted_at    BIGINT,
    last_pulled   BIGINT,
    pulls         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifest_subject ON manifest (repository, subject, digest)
    WHERE subject IS NOT NULL;
CREATE INDEX manifest_subject_type ON manifest (repository, subject, artifact_type, digest)
    WHERE subject IS NOT NULL;

CREATE TABLE edge (
    repository BIGINT NOT NULL,
    manifest   {blob} NOT NULL,
    -- 1 config, 2 layer, 3 child, 4 subject.
    kind       BIGINT NOT NULL CHECK (kind BETWEEN 1 AND 4),
    digest     {blob} NOT NULL,
    size       BIGINT NOT NULL CHECK (size >= 0),
    media_type TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, kind, digest),
    FOREIGN KEY (repository, manifest) REFERENCES manifest (repository, digest)
) {clustered};

CREATE TABLE tag (
    repository BIGINT NOT NULL,
    name       {text} NOT NULL,
    manifest   {blob} NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, manifest) REFERENCES manifest (repository, digest)
) {clustered};
CREATE INDEX tag_manifest ON tag (repository, manifest);

-- Blobs that a repository may serve. Not roots of collection.
CREATE TABLE link (
    repository BIGINT NOT NULL REFERENCES repository (id),
    digest     {blob} NOT NULL,
    size       BIGINT NOT NULL CHECK (size >= 0),
    -- Log sequence number of the blob's incarnation, where it is known.
    birth      BIGINT,
    linked_at  BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
) {clustered};

-- What changed, in order; the newest rows only (change.rs).
CREATE TABLE change (
    sequence   {ordinal},
    kind       BIGINT NOT NULL,
    repository BIGINT NOT NULL,
    object     TEXT NOT NULL,
    at         BIGINT NOT NULL
);
