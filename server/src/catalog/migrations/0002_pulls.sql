-- Pulls: counted in rows of their own, since those of manifests can be large,
-- and how far the counts can be believed. The columns of manifest that were
-- made for this stay unused.

CREATE TABLE pulled_manifest (
    repository  BIGINT NOT NULL,
    digest      {blob} NOT NULL,
    pulls       BIGINT NOT NULL,
    last_pulled BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
) {clustered};

CREATE TABLE pulled_tag (
    repository  BIGINT NOT NULL,
    name        {text} NOT NULL,
    pulls       BIGINT NOT NULL,
    last_pulled BIGINT NOT NULL,
    PRIMARY KEY (repository, name)
) {clustered};

-- Counts of pulls were lost at this time: whatever is there counts as pulled
-- then, or later if its row says so.
ALTER TABLE catalog ADD COLUMN pulls_floor BIGINT;
-- Which opening of the store ended with all its pulls written.
ALTER TABLE catalog ADD COLUMN pulls_through BIGINT;
