"""The language of cells: text to syntax tree (`parse`), to Program (`check`, `canonical`)."""
