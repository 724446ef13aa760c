-- Something to sell; the events in events/ count on these ids and on the plate's price.
INSERT INTO products (id, name, price_cents, stock) VALUES
    (1, 'Espresso cup', 900, 100),
    (2, 'Plate', 1250, 80),
    (3, 'Teapot; two litres', 4900, 12),
    (4, 'Bread knife', 3300, 1);
