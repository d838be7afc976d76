"""An edge whose power goes at a chosen moment, and a disk that then loses what nobody forced to it."""
