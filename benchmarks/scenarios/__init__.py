"""One module a row of the table of goals; each has `measure(book, ...)`, which adds figures to the book."""
