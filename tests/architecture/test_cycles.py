"""No two modules need each other, by whatever way round; an import for type checkers alone does not count."""

import grimp


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph(
        "unlora", "unlora_research", include_external_packages=False, exclude_type_checking_imports=True
    )
    assert len(graph.modules) > 300
    waiting = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    # What needs nothing that waits is no part of a cycle, and neither is what nothing that waits needs.
    while free := [
        name
        for name, needs in waiting.items()
        if not needs & waiting.keys() or not any(name in others for others in waiting.values())
    ]:
        for name in free:
            del waiting[name]
    assert sorted(waiting) == []
