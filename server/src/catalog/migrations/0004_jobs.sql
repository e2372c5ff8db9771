-- Jobs: long work of the server itself, and when it begins by itself.

CREATE TABLE job (
    id         {id},
    kind       {text} NOT NULL,
    -- 1 queued, 2 running, 3 done, 4 failed, 5 cancelled.
    state      BIGINT NOT NULL CHECK (state BETWEEN 1 AND 5),
    -- JSON, whose meaning is the kind's.
    params     TEXT NOT NULL,
    done       BIGINT NOT NULL DEFAULT 0,
    total      BIGINT NOT NULL DEFAULT 0,
    unit       TEXT NOT NULL DEFAULT '',
    -- Where to go on: bytes that only the kind can read.
    place      {blob},
    -- Who runs it, and how often it was taken: only the last taker may write.
    owner      TEXT NOT NULL DEFAULT '',
    epoch      BIGINT NOT NULL DEFAULT 0,
    -- How often it was taken without getting any further.
    attempts   BIGINT NOT NULL DEFAULT 0,
    -- 1 when somebody wants it to end.
    cancel     BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL DEFAULT -1,
    heartbeat  BIGINT NOT NULL DEFAULT -1,
    ended_at   BIGINT NOT NULL DEFAULT -1,
    -- Why it failed, or what came of it.
    outcome    TEXT NOT NULL DEFAULT '',
    -- The number of its last line of log.
    lines      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX job_of_kind ON job (kind, state, id);
-- One at a time of each kind.
CREATE UNIQUE INDEX job_running ON job (kind) WHERE state = 2;

CREATE TABLE job_log (
    job  BIGINT NOT NULL REFERENCES job (id),
    line BIGINT NOT NULL,
    at   BIGINT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job, line)
) {clustered};

CREATE TABLE schedule (
    kind    {text} NOT NULL PRIMARY KEY,
    -- In UTC.
    cron    TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    next_at BIGINT NOT NULL
) {clustered};
