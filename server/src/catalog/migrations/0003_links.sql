-- Blobs of a repository can be deleted: such a link hides like other rows. And
-- one can ask which repositories have a blob.

ALTER TABLE link ADD COLUMN deleted_at BIGINT;
CREATE INDEX link_digest ON link (digest);
