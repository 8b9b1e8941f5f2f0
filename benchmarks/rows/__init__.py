"""One module a row of the table of goals, or a few; `measure(book, ...)` of each adds figures to the book."""
