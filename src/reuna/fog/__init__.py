"""The fog node: the site's gateway. Combines its edges' updates into one partial sum."""
