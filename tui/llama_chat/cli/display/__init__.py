"""What commands print: answers and notes, tables, progress, waiting."""
