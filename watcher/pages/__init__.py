"""Pages: pure views of the board, asked for the state; one file each."""
