"""The cursor that handlers get."""

from pymysql.cursors import DictCursor


class Cursor(DictCursor):
    """PyMySQL's cursor whose rows are dictionaries, by column name."""
