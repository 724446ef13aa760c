-- Deliveries already booked. The supplier's delivery_id is the key, not the queue's message id: SQS
-- keeps its id when it delivers twice, but a supplier who sends twice gets a new one.
CREATE TABLE stock_inbox (
    delivery_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    product_id  INT UNSIGNED NOT NULL,
    quantity    INT UNSIGNED NOT NULL,
    booked_at   DATETIME(3) NOT NULL DEFAULT (UTC_TIMESTAMP(3)),
    PRIMARY KEY (delivery_id),
    KEY stock_inbox_product (product_id),
    CONSTRAINT stock_inbox_quantity_is_positive CHECK (quantity > 0),
    CONSTRAINT stock_inbox_product FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;
