"""A thin line that is cut: two network namespaces, and a link between them that the drill may cut."""
