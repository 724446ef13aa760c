"""Every private name of PyMySQL that this package uses or puts its own in place of."""

# Held against the code, and against PyMySQL's, by tests/test_driver_seams.py. PyMySQL is pinned to
# a minor version for their sake.
SEAMS = (
    "_check_packet_is_eof",
    "_escape_string",
    "_execute_command",
    "_finish_unbuffered_query",
    "_force_close",
    "_next_seq_id",
    "_read_ok_packet",
    "_read_packet",
    "_read_query_result",
    "_read_rowdata_packet_unbuffered",
    "_result",
    "_rfile",
    "_sock",
    "_write_bytes",
)
