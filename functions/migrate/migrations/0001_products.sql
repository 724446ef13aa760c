-- What the shop sells. Money is integer cents: no rounding, no floats, in any client.
CREATE TABLE products (
    id          INT UNSIGNED NOT NULL AUTO_INCREMENT,
    name        VARCHAR(200) NOT NULL,
    price_cents INT UNSIGNED NOT NULL,
    -- Signed, so that taking too much meets the CHECK and not "value out of range".
    stock       INT NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY products_name (name),
    CONSTRAINT products_stock_is_never_negative CHECK (stock >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;
