"""Who may say what: bytes in, verdict out. Nothing here opens a file or a socket or asks a clock."""
