-- Times are UTC by name: what CURRENT_TIMESTAMP means depends on the session's time zone.
CREATE TABLE orders (
    id        BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    customer  VARCHAR(200) NOT NULL,
    placed_at DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
    PRIMARY KEY (id),
    KEY orders_placed_at (placed_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;

-- The price is the one paid: products change theirs.
CREATE TABLE order_lines (
    order_id    BIGINT UNSIGNED NOT NULL,
    product_id  INT UNSIGNED NOT NULL,
    quantity    INT UNSIGNED NOT NULL,
    price_cents INT UNSIGNED NOT NULL,
    PRIMARY KEY (order_id, product_id),
    KEY order_lines_product (product_id),
    CONSTRAINT order_lines_quantity_is_positive CHECK (quantity > 0),
    CONSTRAINT order_lines_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE,
    CONSTRAINT order_lines_product FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;

-- One row per order placed through the API, written in the order's own transaction. The answer is
-- the order itself, so the key needs no copy of it. ascii_bin: keys are equal byte by byte.
CREATE TABLE idempotency_keys (
    idempotency_key VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    request_hash    CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    order_id        BIGINT UNSIGNED NULL,
    PRIMARY KEY (idempotency_key),
    UNIQUE KEY idempotency_keys_order (order_id),
    CONSTRAINT idempotency_keys_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;
