-- Orders and keys belong to who placed them: the ARN of an IAM user (its path may have 512
-- characters) or role, or a Cognito identity. What was placed before, or without IAM, belongs to
-- the one caller of an API without IAM.
ALTER TABLE orders
    ADD COLUMN caller VARCHAR(640) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'unsigned';

-- Two callers may choose the same key.
ALTER TABLE idempotency_keys
    ADD COLUMN caller VARCHAR(640) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'unsigned',
    DROP PRIMARY KEY,
    ADD PRIMARY KEY (caller, idempotency_key);
