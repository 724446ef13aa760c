-- One row per product and day it was sold on, computed by the sales_report function.
CREATE TABLE sales_report (
    day             DATE NOT NULL,
    product_id      INT UNSIGNED NOT NULL,
    orders          INT UNSIGNED NOT NULL,
    units           BIGINT UNSIGNED NOT NULL,
    revenue_cents   BIGINT UNSIGNED NOT NULL,
    rank_of_day     INT UNSIGNED NOT NULL,
    share_of_day    DECIMAL(6, 5) NOT NULL,
    units_of_7_days BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (day, product_id),
    KEY sales_report_product (product_id),
    CONSTRAINT sales_report_product FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_520_ci;
